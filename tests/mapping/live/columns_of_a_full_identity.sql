ALTER PUBLICATION portal_audit SET TABLE portal.users (username, state);
