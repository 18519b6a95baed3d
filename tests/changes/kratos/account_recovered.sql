CALL registered(1, 'wrenn');
-- when
CALL open_session(20, 1, 'code_recovery');
CALL open_settings(30, 1);
CALL replace_credential(1, 'password');
CALL settled(30);
