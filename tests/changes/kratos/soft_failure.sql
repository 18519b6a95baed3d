CALL registered(1, 'wrenn');
CALL registered(2, 'okafor7');
UPDATE identities SET state = 'inactive' WHERE id = id(2);
-- when
-- The password is right and the account is disabled: no session follows, and the flow does not say whose it was.
CALL open_login(10);
CALL accept(10, 'password');
-- Meanwhile others come in.
CALL open_login(11, 'api');
CALL accept(11, 'password');
CALL open_session(20, 1);
-- Here an earlier failure has left the name.
CALL open_login(12);
CALL refuse(12, 4000006, 'okafor7');
CALL accept(12, 'password');
