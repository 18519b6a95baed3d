CALL registered(1, 'wrenn');
CALL open_session(20, 1);
-- when
-- The session lives longer: no login.
UPDATE sessions SET expires_at = expires_at + interval '1 day' WHERE id = id(20);
-- The password again, before something delicate; first a wrong one.
CALL open_login(10, 'browser', true);
CALL refuse(10, 4000006, 'wrenn');
CALL accept(10, 'password');
CALL prove_again(20, 'password');
-- A second factor; first a wrong one.
CALL open_login(11, 'browser', false, 'aal2');
CALL refuse(11, 4000008);
CALL accept(11, 'totp');
CALL prove_again(20, 'totp', 'aal2');
