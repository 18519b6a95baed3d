CALL registered(1, 'wrenn');
CALL registered(2, 'okafor7');
-- when
CALL open_login(10);
CALL refuse(10, 4000006, 'wrenn');
-- The success repeats the words of the failure.
CALL accept(10, 'password');
CALL open_session(20, 1);
-- First somebody else's name, then one's own.
CALL open_login(11);
CALL refuse(11, 4000006, 'wrenn');
CALL accept(11, 'password');
CALL open_session(21, 2);
-- An identifier first, then a password.
CALL open_login(12);
CALL accept(12, 'identifier_first');
CALL refuse(12, 4000006, 'wrenn');
CALL accept(12, 'password');
CALL open_session(22, 1);
