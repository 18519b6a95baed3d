CALL registered(1, 'wrenn');
-- when
CALL open_login(10);
CALL accept(10, 'code', 'sent_email');
-- Every try counts first; then the code is wrong.
CALL submit(10);
CALL refuse(10, 4010008, 'wrenn');
CALL submit(10);
CALL refuse(10, 4010008, 'wrenn');
-- And at last it is right.
CALL submit(10);
CALL accept(10, 'code', 'passed_challenge');
CALL open_session(20, 1, 'code');
-- No such user.
CALL open_login(11);
CALL refuse(11, 4000035, 'nobody@example.net');
