CALL registered(1, 'wrenn');
-- when
-- The password was hashed in an old way: a login writes it anew.
CALL open_login(10);
CALL replace_credential(1, 'password');
CALL accept(10, 'password');
CALL open_session(20, 1);
