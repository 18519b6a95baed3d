CALL registered(1, 'wrenn');
-- when
CALL open_settings(30, 1);
CALL add_credential(1, 'totp');
CALL settled(30);
-- Up to 1.3 all credentials are written anew, so which of them changed is not known.
CALL open_settings(31, 1);
BEGIN; CALL replace_credential(1, 'password'); CALL replace_credential(1, 'totp'); COMMIT;
CALL settled(31);
