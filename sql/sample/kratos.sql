-- A sample identity server: tables with the names, types and keys that Ory Kratos has in its schema, as far as its logins touch them,
-- and nothing of its code. For tests; a real Kratos makes its own.

CREATE TABLE identities (
  id               UUID PRIMARY KEY,
  schema_id        VARCHAR(2048) NOT NULL DEFAULT 'default',
  traits           JSONB NOT NULL,
  created_at       TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  updated_at       TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  nid              UUID,
  state            VARCHAR(255) NOT NULL DEFAULT 'active',
  state_changed_at TIMESTAMP,
  metadata_public  JSONB,
  metadata_admin   JSONB,
  available_aal    VARCHAR(4)
);

CREATE TABLE identity_credential_types (
  id   UUID PRIMARY KEY,
  name VARCHAR(32) NOT NULL UNIQUE
);
INSERT INTO identity_credential_types
SELECT ('c0000000-0000-0000-0000-00000000000' || n)::UUID, name
  FROM unnest(ARRAY['password', 'oidc', 'totp', 'lookup_secret', 'webauthn', 'code']) WITH ORDINALITY AS t (name, n);

CREATE TABLE identity_credentials (
  id                          UUID PRIMARY KEY,
  config                      JSONB NOT NULL,
  identity_credential_type_id UUID NOT NULL REFERENCES identity_credential_types (id) ON DELETE CASCADE,
  identity_id                 UUID NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
  created_at                  TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  updated_at                  TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  nid                         UUID,
  version                     INT NOT NULL DEFAULT 0
);

CREATE TABLE identity_credential_identifiers (
  id                          UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  identifier                  VARCHAR(255) NOT NULL,
  identity_credential_id      UUID NOT NULL REFERENCES identity_credentials (id) ON DELETE CASCADE,
  created_at                  TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  updated_at                  TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  nid                         UUID,
  identity_credential_type_id UUID NOT NULL,
  identity_id                 UUID NOT NULL,
  UNIQUE (nid, identity_credential_type_id, identifier)
);

CREATE TABLE sessions (
  id                     UUID PRIMARY KEY,
  issued_at              TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  expires_at             TIMESTAMP NOT NULL,
  authenticated_at       TIMESTAMP NOT NULL,
  identity_id            UUID NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
  created_at             TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  updated_at             TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  token                  VARCHAR(39),
  active                 BOOLEAN DEFAULT false,
  nid                    UUID,
  logout_token           VARCHAR(39),
  aal                    VARCHAR(4) NOT NULL DEFAULT 'aal1',
  authentication_methods JSONB NOT NULL
);

CREATE TABLE session_devices (
  id          UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  ip_address  VARCHAR(50) DEFAULT '',
  user_agent  VARCHAR(512) DEFAULT '',
  location    VARCHAR(512) DEFAULT '',
  nid         UUID,
  session_id  UUID NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  created_at  TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  updated_at  TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  identity_id UUID
);

CREATE TABLE selfservice_login_flows (
  id                          UUID PRIMARY KEY,
  request_url                 TEXT NOT NULL,
  issued_at                   TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  expires_at                  TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC') + interval '1 hour',
  active_method               VARCHAR(32) NOT NULL,
  csrf_token                  VARCHAR(255) NOT NULL,
  created_at                  TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  updated_at                  TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  forced                      BOOLEAN NOT NULL DEFAULT false,
  type                        VARCHAR(16) NOT NULL DEFAULT 'browser',
  ui                          JSONB,
  nid                         UUID,
  requested_aal               VARCHAR(4) NOT NULL DEFAULT 'aal1',
  internal_context            JSONB NOT NULL,
  oauth2_login_challenge      UUID,
  oauth2_login_challenge_data TEXT,
  state                       VARCHAR(255),
  submit_count                INT NOT NULL DEFAULT 0
);

CREATE TABLE selfservice_settings_flows (
  id               UUID PRIMARY KEY,
  request_url      TEXT NOT NULL,
  issued_at        TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  expires_at       TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC') + interval '1 hour',
  identity_id      UUID NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
  created_at       TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  updated_at       TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
  active_method    VARCHAR(32),
  state            VARCHAR(255) NOT NULL,
  type             VARCHAR(16) NOT NULL DEFAULT 'browser',
  ui               JSONB,
  nid              UUID,
  internal_context JSONB NOT NULL
);

-- What the identity server does, one procedure for each request or step of one; each commits as the server does. The secrets that it
-- writes have a word in them by which a test finds them wherever they go. Ids are written short: id(7).
CREATE FUNCTION id(n INT) RETURNS UUID LANGUAGE sql IMMUTABLE AS
  $$ SELECT (lpad(to_hex(n), 8, '0') || '-0000-4000-8000-000000000000')::UUID $$;

CREATE FUNCTION secret(name TEXT) RETURNS TEXT LANGUAGE sql IMMUTABLE AS $$ SELECT 'canary-' || name $$;

CREATE FUNCTION utc() RETURNS TIMESTAMP LANGUAGE sql AS $$ SELECT clock_timestamp() AT TIME ZONE 'UTC' $$;

-- A form as it is shown: its messages, and what was typed.
CREATE FUNCTION form(message INT, typed TEXT, node TEXT DEFAULT 'identifier') RETURNS JSONB LANGUAGE sql AS $$
  SELECT jsonb_build_object(
    'action', 'https://id.example.net/login', 'method', 'POST',
    'messages', CASE WHEN message IS NULL THEN '[]' ELSE jsonb_build_array(jsonb_build_object('id', message, 'type', 'error', 'text', 'text of the server')) END,
    'nodes', jsonb_build_array(
      jsonb_build_object('type', 'input', 'group', 'default', 'attributes', jsonb_build_object('name', 'csrf_token', 'value', secret('csrf-node'))),
      jsonb_build_object('type', 'input', 'group', 'default', 'attributes', jsonb_build_object('name', node, 'value', coalesce(typed, '')), 'messages', '[]'::JSONB),
      jsonb_build_object('type', 'input', 'group', 'password', 'attributes', jsonb_build_object('name', 'password', 'type', 'password')))) $$;

-- Credentials of one type with their identifiers, in the open transaction.
CREATE PROCEDURE add_credential(identity INT, type TEXT, identifiers TEXT[] DEFAULT '{}') LANGUAGE plpgsql AS $$
DECLARE
  credential UUID := gen_random_uuid();
  type_id    UUID := (SELECT t.id FROM identity_credential_types t WHERE t.name = type);
BEGIN
  INSERT INTO identity_credentials (id, config, identity_credential_type_id, identity_id)
  VALUES (credential, jsonb_build_object('hashed_password', secret('hash')), type_id, id(identity));
  INSERT INTO identity_credential_identifiers (identifier, identity_credential_id, identity_credential_type_id, identity_id)
  SELECT i, credential, type_id, id(identity) FROM unnest(identifiers) AS i;
END $$;

-- An identity with a password. The same for self-service and for an admin.
CREATE PROCEDURE register(identity INT, username TEXT) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO identities (id, traits, created_at)
  VALUES (id(identity), jsonb_build_object('username', username, 'email', username || '@example.net', 'name', 'A. Person'), utc());
  CALL add_credential(identity, 'password', ARRAY[username, username || '@example.net']);
END $$;

-- The same, some time ago.
CREATE PROCEDURE registered(identity INT, username TEXT) LANGUAGE plpgsql AS $$
BEGIN
  CALL register(identity, username);
  UPDATE identities SET created_at = created_at - interval '1 month' WHERE id = id(identity);
END $$;

CREATE PROCEDURE open_login(flow INT, type TEXT DEFAULT 'browser', forced BOOLEAN DEFAULT false, aal TEXT DEFAULT 'aal1') LANGUAGE sql AS $$
  INSERT INTO selfservice_login_flows (id, request_url, active_method, csrf_token, type, forced, requested_aal, ui, internal_context, oauth2_login_challenge_data, state)
  VALUES (id(flow), secret('url'), '', secret('csrf'), type, forced, aal, form(NULL, NULL), jsonb_build_object('x', secret('context')), secret('oauth2'), 'choose_method') $$;

-- The server says why not. All columns are set, as it does.
CREATE PROCEDURE refuse(flow INT, message INT, typed TEXT DEFAULT NULL) LANGUAGE sql AS $$
  UPDATE selfservice_login_flows
     SET request_url = request_url, active_method = active_method, csrf_token = csrf_token, state = state, submit_count = submit_count,
         ui = form(message, typed)
   WHERE id = id(flow) $$;

-- The server has accepted a method; the form stays as it was.
CREATE PROCEDURE accept(flow INT, method TEXT, new_state TEXT DEFAULT 'choose_method') LANGUAGE sql AS $$
  UPDATE selfservice_login_flows SET active_method = method, state = new_state, ui = ui, updated_at = utc() WHERE id = id(flow) $$;

CREATE PROCEDURE submit(flow INT) LANGUAGE sql AS
  $$ UPDATE selfservice_login_flows SET submit_count = submit_count + 1 WHERE id = id(flow) $$;

-- A session with its device, in one transaction.
CREATE PROCEDURE open_session(session INT, identity INT, method TEXT DEFAULT 'password', lasts INTERVAL DEFAULT '1 day', ip TEXT DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO sessions (id, expires_at, authenticated_at, identity_id, token, active, logout_token, authentication_methods)
  VALUES (id(session), utc() + lasts, utc(), id(identity), secret('token'), true, secret('logout'),
          jsonb_build_array(jsonb_build_object('method', method, 'aal', 'aal1', 'completed_at', utc())));
  INSERT INTO session_devices (session_id, ip_address, user_agent, location, identity_id)
  VALUES (id(session), coalesce(ip, '192.0.2.' || session), 'Mozilla/5.0 (X11)', 'Springfield', id(identity));
END $$;

CREATE PROCEDURE prove_again(session INT, method TEXT, new_aal TEXT DEFAULT 'aal1') LANGUAGE sql AS $$
  UPDATE sessions
     SET authenticated_at = utc(), aal = new_aal,
         authentication_methods = authentication_methods || jsonb_build_array(jsonb_build_object('method', method, 'aal', new_aal, 'completed_at', utc()))
   WHERE id = id(session) $$;

CREATE PROCEDURE log_out(session INT) LANGUAGE sql AS $$ UPDATE sessions SET active = false WHERE id = id(session) $$;

-- Every other session of the identity, dead ones too.
CREATE PROCEDURE revoke_others(session INT) LANGUAGE sql AS $$
  UPDATE sessions SET active = false
   WHERE id <> id(session) AND identity_id = (SELECT s.identity_id FROM sessions s WHERE s.id = id(session)) $$;

-- Credentials of one type are replaced, with the same identifiers, in one transaction.
CREATE PROCEDURE replace_credential(identity INT, type TEXT) LANGUAGE plpgsql AS $$
DECLARE
  identifiers TEXT[] := ARRAY(
    SELECT i.identifier FROM identity_credential_identifiers i
      JOIN identity_credentials c ON c.id = i.identity_credential_id
      JOIN identity_credential_types t ON t.id = c.identity_credential_type_id
     WHERE c.identity_id = id(identity) AND t.name = type ORDER BY 1);
BEGIN
  UPDATE identities SET updated_at = utc() WHERE id = id(identity);
  DELETE FROM identity_credentials c USING identity_credential_types t
   WHERE c.identity_id = id(identity) AND t.id = c.identity_credential_type_id AND t.name = type;
  CALL add_credential(identity, type, identifiers);
END $$;

CREATE PROCEDURE open_settings(flow INT, identity INT) LANGUAGE sql AS $$
  INSERT INTO selfservice_settings_flows (id, request_url, identity_id, state, ui, internal_context)
  VALUES (id(flow), secret('url'), id(identity), 'show_form', form(NULL, NULL), jsonb_build_object('x', secret('context'))) $$;

CREATE PROCEDURE settled(flow INT) LANGUAGE sql AS
  $$ UPDATE selfservice_settings_flows SET state = 'success' WHERE id = id(flow) $$;
