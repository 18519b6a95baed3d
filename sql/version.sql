
-- The sidecar asks for this number: it runs this script where it is another one, or says that ops have to.
COMMENT ON SCHEMA portal_audit IS 'portal-audit, schema 4';
