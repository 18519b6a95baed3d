CALL registered(1, 'wrenn');
CALL registered(2, 'okafor7');
-- when
-- Each line is a transaction. A browser and a program, one after the other.
CALL open_login(10);
CALL accept(10, 'password');
CALL open_session(20, 1);
CALL open_login(11, 'api');
CALL accept(11, 'password');
CALL open_session(21, 2);
-- With a provider the method is set before the user leaves for it; long after, the session comes.
CALL open_login(12);
CALL accept(12, 'oidc');
CALL open_session(22, 1, 'oidc');
-- The flow may be older than what we know, and the session comes without one.
CALL open_session(23, 2);
