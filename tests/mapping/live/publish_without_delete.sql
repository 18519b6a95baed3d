ALTER PUBLICATION portal_audit SET (publish = 'insert, update, truncate');
