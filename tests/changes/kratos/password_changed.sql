CALL registered(1, 'wrenn');
CALL registered(2, 'okafor7');
CALL open_session(20, 1);
CALL open_session(21, 1);
-- when
-- By its owner: credentials, then the settings flow, then the other sessions end.
CALL open_settings(30, 1);
CALL replace_credential(1, 'password');
CALL settled(30);
CALL revoke_others(20);
-- By an admin: the same credentials and no flow.
CALL replace_credential(2, 'password');
-- The names are still theirs.
CALL open_login(10);
CALL refuse(10, 4000006, 'okafor7@example.net');
