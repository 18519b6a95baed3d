ALTER PUBLICATION portal_audit SET TABLE portal.users WHERE (username <> 'admin');
