CALL registered(1, 'wrenn');
UPDATE identities SET state = 'inactive', state_changed_at = utc() WHERE id = id(1);
-- when
-- Up to 1.3 with all credentials.
BEGIN; UPDATE identities SET state = 'active', state_changed_at = utc() WHERE id = id(1); CALL replace_credential(1, 'password'); COMMIT;
