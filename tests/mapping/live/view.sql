CREATE VIEW portal.active_users AS SELECT * FROM portal.users WHERE state = 'Active';
