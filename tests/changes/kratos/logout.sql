CALL registered(1, 'wrenn');
CALL registered(2, 'okafor7');
CALL open_session(20, 1);
CALL open_session(21, 1);
CALL open_session(22, 1);
CALL open_session(23, 1, 'password', '-1 hour');
CALL open_session(24, 1);
CALL open_session(25, 2);
CALL open_session(26, 2);
UPDATE sessions SET active = false WHERE id = id(24);
-- when
CALL log_out(20);
-- Twice is once.
CALL log_out(20);
-- All others: two are open, one has expired, two were ended before.
CALL open_session(27, 1);
CALL revoke_others(27);
-- Clean-up deletes what is over, and old flows.
CALL open_login(10);
DELETE FROM sessions WHERE id IN (id(20), id(23), id(24));
DELETE FROM selfservice_login_flows;
-- An admin deletes a session that is open.
DELETE FROM sessions WHERE id = id(25);
-- A session that was opened here ends here.
CALL log_out(27);
-- One that expires while it is followed is over before it is revoked.
CALL open_session(28, 2, 'password', '-1 hour');
CALL log_out(28);
