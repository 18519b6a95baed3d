-- Users: a creation whose name is taken, one that breaks a rule, a deletion that is taken back, and one that worked.
INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1);
-- when
SET portal.caller = 'opsdesk'; INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 2, 2);
INSERT INTO portal.users (username, uid, gid, state) VALUES ('wren', 2, 2, 'Asleep');
BEGIN; UPDATE portal.users SET state = 'Active' WHERE username = 'ada'; ROLLBACK;
BEGIN; DELETE FROM portal.users WHERE username = 'ada'; ROLLBACK;
BEGIN; DELETE FROM portal.users WHERE username = 'ada'; COMMIT;
