CALL registered(1, 'wrenn');
-- when
-- Sessions of one transaction, each with its own device; and all of them revoked by one statement.
DO $$ BEGIN FOR n IN 101..103 LOOP CALL open_session(n, 1); END LOOP; END $$;
UPDATE sessions SET active = false;
