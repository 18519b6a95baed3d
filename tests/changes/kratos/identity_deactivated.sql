CALL registered(1, 'wrenn');
-- when
UPDATE identities SET state = 'inactive', state_changed_at = utc() WHERE id = id(1);
