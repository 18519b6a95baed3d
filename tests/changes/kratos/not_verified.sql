CALL registered(1, 'wrenn');
CALL registered(2, 'okafor7');
-- when
CALL open_login(10);
CALL accept(10, 'password');
CALL refuse(10, 4000010, 'wrenn');
-- Another one gets in.
CALL open_login(11);
CALL accept(11, 'password');
CALL open_session(20, 2);
