CALL registered(1, 'wrenn');
CALL registered(2, 'okafor7');
CALL open_session(20, 1);
CALL open_session(21, 1);
-- when
-- Everything goes with it, in whatever order.
DELETE FROM identities WHERE id = id(1);
-- Its name is nobody's any more.
CALL open_login(10);
CALL refuse(10, 4000006, 'wrenn');
