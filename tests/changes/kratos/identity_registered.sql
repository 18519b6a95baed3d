-- when
-- By an admin: no session.
CALL register(1, 'wrenn');
-- By themselves: a session comes with it, which is no login.
CALL register(2, 'okafor7');
CALL open_session(20, 2);
-- And a login right after is one.
CALL open_login(10);
CALL accept(10, 'password');
CALL open_session(21, 2);
-- An identity whose traits have no username, only an address; and one with neither.
INSERT INTO identities (id, traits) VALUES (id(3), '{"email": "fennel@example.net"}'), (id(4), '{"name": "A. Person"}');
