CALL registered(1, 'wrenn');
-- when
-- A profile change; up to 1.3 all credentials are written anew, which is no password change.
BEGIN; UPDATE identities SET traits = traits || '{"name": "B. Person"}', updated_at = utc() WHERE id = id(1); CALL replace_credential(1, 'password'); COMMIT;
CALL settled(30);
-- Another name; the old one is nobody's.
BEGIN; UPDATE identities SET traits = traits || '{"username": "thistle"}' WHERE id = id(1); UPDATE identity_credential_identifiers SET identifier = 'thistle' WHERE identifier = 'wrenn'; COMMIT;
CALL open_login(10);
CALL refuse(10, 4000006, 'wrenn');
CALL refuse(10, 4000006, 'thistle');
-- Nothing that anybody did.
UPDATE identities SET available_aal = 'aal1', updated_at = utc() WHERE id = id(1);
