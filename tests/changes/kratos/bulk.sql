CALL registered(1, 'wrenn');
-- when
-- Many sessions of one transaction, more than wait for their devices; and all of them revoked.
DO $$ BEGIN FOR n IN 101..103 LOOP CALL open_session(n, 1); END LOOP; END $$;
UPDATE sessions SET active = false;
