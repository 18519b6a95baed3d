DROP PUBLICATION portal_audit;
