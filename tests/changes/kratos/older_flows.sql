CALL registered(1, 'wrenn');
CALL open_login(10);
CALL refuse(10, 4000006, 'wrenn');
CALL open_login(11);
CALL accept(11, 'code', 'sent_email');
-- when
-- What stood in the flows when the audit began is not told, and is known.
CALL accept(10, 'password');
CALL open_session(20, 1);
CALL submit(11);
CALL refuse(11, 4010008, 'wrenn');
