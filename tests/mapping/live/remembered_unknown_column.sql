ALTER PUBLICATION portal_audit ADD TABLE portal.realizations;
