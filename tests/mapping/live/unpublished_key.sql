ALTER TABLE portal.users REPLICA IDENTITY DEFAULT;
ALTER PUBLICATION portal_audit SET TABLE portal.users (name, state);
