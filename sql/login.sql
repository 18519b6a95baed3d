
-- 4. The sidecar's login: it may add events, and never change one. It has no password yet: set it with  \password {{role_text}}
DO $portal_audit$
DECLARE
  login CONSTANT TEXT := {{role}};
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = login) THEN
    EXECUTE format('CREATE ROLE %I LOGIN CONNECTION LIMIT {{connections}}', login);
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = login AND rolsuper) THEN
    RAISE WARNING 'role % is a superuser: the sidecar needs a login of its own that may do no more than add events', login;
  ELSIF NOT pg_has_role(login, 'portal_audit_writer', 'MEMBER') THEN
    EXECUTE format('GRANT portal_audit_writer TO %I', login);
  END IF;
  -- COPY, which takes two thirds of an INSERT's time, is refused where policies hold. This login may add events and read none, so there is
  -- nothing for a policy to keep from it. Only a superuser may say so; without it large batches are inserted.
  BEGIN
    IF NOT (SELECT rolbypassrls OR rolsuper FROM pg_roles WHERE rolname = login) THEN
      EXECUTE format('ALTER ROLE %I BYPASSRLS', login);
    END IF;
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'large batches go by INSERT instead of COPY until a superuser runs: ALTER ROLE % BYPASSRLS', quote_ident(login);
  END;
END $portal_audit$;
