-- People who sign in to the sample identity server of kratos.sql, some of them with a wrong password: CALL logins.act(seed) is one visit.
-- The same seed does the same. Every step commits by itself, as the server's requests do.
CREATE SCHEMA logins;

-- Those of history.sql, with an identity each since a month ago.
CREATE TABLE logins.people (
  n        INT PRIMARY KEY,
  username TEXT NOT NULL UNIQUE
);
INSERT INTO logins.people
SELECT n, username
  FROM unnest(ARRAY['opsduty', 'opsnight', 'wrenn', 'okafor7', 'maple', 'tansy', 'corvin', 'delmar3', 'eskel', 'farrow', 'gantry',
    'hollis2', 'ibexa', 'juniper', 'kestrel', 'larkin5', 'marrow', 'nettle', 'osprey', 'pellam', 'rowan8', 'sable', 'tarn', 'umber',
    'vetch', 'willet', 'xylo4', 'yarrow', 'zephyr', 'alder']) WITH ORDINALITY AS p (username, n);
DO $$
DECLARE
  person logins.people;
BEGIN
  FOR person IN SELECT * FROM logins.people LOOP CALL registered(person.n, person.username); END LOOP;
END $$;

-- Which events a visit must give, written in the transaction that gives them. The sidecar does not follow this table.
CREATE TABLE logins.told (
  event_type TEXT NOT NULL,
  subject    TEXT NOT NULL
);

CREATE FUNCTION logins.hash(key TEXT, n BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE
AS $$ SELECT mod(mod(hashtextextended(key, 7), n) + n, n) $$;

-- The form comes back with a reason.
CREATE PROCEDURE logins.mistype(flow INT, typed TEXT, subject TEXT) LANGUAGE plpgsql AS $$
BEGIN
  CALL refuse(flow, 4000006, typed);
  INSERT INTO logins.told VALUES ('login_failed', subject);
  COMMIT;
END $$;

CREATE PROCEDURE logins.come_in(flow INT, session INT, person logins.people, method TEXT) LANGUAGE plpgsql AS $$
BEGIN
  CALL accept(flow, method);
  COMMIT;
  CALL open_session(session, person.n, method, ip => '192.0.2.' || 10 + person.n);
  INSERT INTO logins.told VALUES ('login_succeeded', person.username);
  COMMIT;
END $$;

CREATE PROCEDURE logins.act(seed INT) LANGUAGE plpgsql AS $$
DECLARE
  -- Ids are written short, and people have the first ones.
  flow    INT := 1000 + 2 * seed;
  session INT := flow + 1;
  what    BIGINT := logins.hash('what' || seed, 20);
  person  logins.people;
BEGIN
  SELECT * INTO person FROM logins.people WHERE n = 1 + logins.hash('who' || seed, 30);
  CALL open_login(flow);
  COMMIT;
  IF what = 0 THEN
    -- Somebody tries a name that nobody has.
    CALL logins.mistype(flow, 'nobody' || seed, '');
    RETURN;
  END IF;
  IF what < 6 THEN
    CALL logins.mistype(flow, person.username, person.username);
  END IF;
  IF what < 3 THEN
    RETURN;
  END IF;
  CALL logins.come_in(flow, session, person, CASE WHEN what IN (6, 7) THEN 'oidc' ELSE 'password' END);
  IF what IN (8, 9) THEN
    -- A second factor, for something delicate.
    CALL prove_again(session, 'totp', 'aal2');
    INSERT INTO logins.told VALUES ('login_refreshed', person.username);
    COMMIT;
  END IF;
  IF what IN (10, 11, 12) THEN
    CALL log_out(session);
    INSERT INTO logins.told VALUES ('logout', person.username);
    COMMIT;
  END IF;
END $$;
