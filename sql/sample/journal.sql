-- The oracle: what the audit must say, derived without the audit.
--
-- AFTER row triggers write each change of the portal's tables into journal.change, in the change's own transaction: a rollback
-- takes both away, so the journal holds exactly what was committed, with whole rows before and after, whatever the replica
-- identities carry. The view journal.expected then says which event each change must give. It follows the states by hand and
-- knows nothing of the mapping file: where the two disagree, one of them is wrong.
--
-- Three files, run in this order: this one has the journal and the events of people, organizations, projects and experiments;
-- journal_experiments.sql those of models, realizations and materializations; journal_facilities.sql the rest, and the whole.
--
-- For tests and the demo only. The schema is never part of a publication.
CREATE SCHEMA journal;
COMMENT ON SCHEMA journal IS 'Oracle of the tests: every committed change, and the audit event it must give. Never published.';

CREATE TABLE journal.change (
    seq BIGSERIAL PRIMARY KEY,
    xid BIGINT NOT NULL,
    tbl TEXT NOT NULL,
    op  TEXT NOT NULL,
    old JSONB,
    new JSONB,
    known JSONB
);
-- A created organization looks for its Creator among the changes of its transaction.
CREATE INDEX change_xid ON journal.change (xid);
COMMENT ON TABLE journal.change IS 'One row for each committed change of a mapped table, and one for each TRUNCATE.';
COMMENT ON COLUMN journal.change.seq IS
    'Order of the triggers. Rows of one statement come before or after its cascades, other than in the WAL: compare sets, not order.';
COMMENT ON COLUMN journal.change.xid IS 'Low 32 bits of the top-level transaction id: the xid that pgoutput''s Begin carries.';
COMMENT ON COLUMN journal.change.op IS 'INSERT, UPDATE, DELETE or TRUNCATE.';
COMMENT ON COLUMN journal.change.known IS
    'What the portal''s other rows said at that moment: the model''s hash, the realization''s revision. Later nobody could ask.';

-- A model may be gone when its experiment is realized again; its hash is to be told all the same.
CREATE TABLE journal.model (
    project    TEXT,
    experiment TEXT,
    revision   TEXT,
    sha256     TEXT NOT NULL,
    PRIMARY KEY (project, experiment, revision)
);
COMMENT ON TABLE journal.model IS 'SHA-256 of each model file that was ever pushed, of the last one under a revision.';
INSERT INTO journal.model
SELECT project, experiment, revision, encode(sha256(convert_to(model_file, 'UTF8')), 'hex')
FROM portal.experiment_models WHERE model_file IS NOT NULL;

-- What must be asked now, for the change of a row of this table.
CREATE FUNCTION journal.known(tbl TEXT, is_delete BOOLEAN, image JSONB) RETURNS JSONB
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    in_project    TEXT := coalesce(image ->> 'pid', image ->> 'project');
    of_experiment TEXT := coalesce(image ->> 'eid', image ->> 'experiment');
    at_revision   TEXT := image ->> 'revision';
BEGIN
    IF tbl = 'experiment_models' AND NOT is_delete THEN
        DELETE FROM journal.model WHERE (project, experiment, revision) = (in_project, of_experiment, at_revision);
        INSERT INTO journal.model
        SELECT in_project, of_experiment, at_revision, encode(sha256(convert_to(image ->> 'model_file', 'UTF8')), 'hex')
        WHERE image ->> 'model_file' IS NOT NULL;
    ELSIF tbl = 'materializations' THEN
        SELECT r.revision INTO at_revision FROM portal.realizations AS r
        WHERE (r.pid, r.eid, r.id) = (in_project, of_experiment, image ->> 'rid');
    END IF;
    RETURN jsonb_build_object('revision', at_revision, 'model_sha256',
        (SELECT m.sha256 FROM journal.model AS m WHERE (project, experiment, revision) = (in_project, of_experiment, at_revision)));
END $$;
COMMENT ON FUNCTION journal.known(TEXT, BOOLEAN, JSONB) IS 'Revision and hash of the model that a row is about, as of now.';

CREATE FUNCTION journal.record() RETURNS trigger
LANGUAGE plpgsql
-- The writer needs no privilege on the journal, and nothing in its search_path can stand in for a name used here.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before JSONB := CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) END;
    after  JSONB := CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN to_jsonb(NEW) END;
BEGIN
    INSERT INTO journal.change (xid, tbl, op, old, new, known)
    VALUES (pg_current_xact_id()::text::bigint & 4294967295, TG_TABLE_NAME, TG_OP, before, after,
            CASE WHEN TG_TABLE_NAME IN ('experiment_models', 'realizations', 'materializations') AND TG_OP <> 'TRUNCATE'
                 THEN journal.known(TG_TABLE_NAME, TG_OP = 'DELETE', coalesce(after, before)) END);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION journal.record() IS 'Writes the change that fired it into journal.change.';

-- ENABLE ALWAYS: under session_replication_role = replica an ordinary trigger stays silent while the WAL goes on speaking.
-- The upper-case name sorts before RI_ConstraintTrigger, so that a parent is recorded before the children its DELETE takes.
DO $$
DECLARE
    tbl TEXT;
BEGIN
    FOREACH tbl IN ARRAY ARRAY['users', 'organizations', 'projects', 'organization_members', 'project_members', 'experiments',
                               'experiment_models', 'realizations', 'allocations', 'materializations',
                               'facilities', 'facility_members', 'facility_resources', 'pools',
                               'public_keys', 'api_tokens', 'xdcs']
    LOOP
        EXECUTE format('CREATE TRIGGER "AA_journal" AFTER INSERT OR UPDATE OR DELETE ON portal.%I
                        FOR EACH ROW EXECUTE FUNCTION journal.record()', tbl);
        EXECUTE format('CREATE TRIGGER "AA_journal_truncate" AFTER TRUNCATE ON portal.%I
                        FOR EACH STATEMENT EXECUTE FUNCTION journal.record()', tbl);
        EXECUTE format('ALTER TABLE portal.%I ENABLE ALWAYS TRIGGER "AA_journal"', tbl);
        EXECUTE format('ALTER TABLE portal.%I ENABLE ALWAYS TRIGGER "AA_journal_truncate"', tbl);
    END LOOP;
END $$;

-- Which of the named columns an UPDATE changed, in the order in which they are named; NULL if none did.
CREATE FUNCTION journal.changed(old JSONB, new JSONB, columns TEXT[]) RETURNS JSONB
LANGUAGE sql IMMUTABLE
AS $$
    SELECT jsonb_agg(c.name ORDER BY c.ordinality)
    FROM unnest(columns) WITH ORDINALITY AS c (name, ordinality)
    WHERE old -> c.name IS DISTINCT FROM new -> c.name
$$;
COMMENT ON FUNCTION journal.changed(JSONB, JSONB, TEXT[]) IS 'The named columns in which two row images differ, as a list.';

CREATE VIEW journal.expected_people AS
WITH
-- Users, organizations and projects live the same life. Only names and facts differ, so these are brought to one form first.
-- The creator is the Creator inserted in the same transaction, if there is exactly one: of two, either may have acted.
entity AS (
    SELECT seq, xid, op, old, new, 'user' AS prefix, 'user' AS subject_type, 'username' AS key,
           ARRAY['category', 'institution'] AS facts,
           journal.changed(old, new, ARRAY['name', 'email', 'access_mode', 'uid', 'gid', 'admin', 'institution', 'category',
                                           'country', 'usstate', 'created', 'demo_mode_expiration']) AS changed,
           NULL AS creator
    FROM journal.change WHERE tbl = 'users'
    UNION ALL
    SELECT seq, xid, op, old, new, 'org', 'organization', 'name',
           ARRAY['category', 'subcategory', 'description'],
           journal.changed(old, new, ARRAY['description', 'oid', 'access_mode', 'category', 'subcategory', 'created']),
           (SELECT CASE count(*) WHEN 1 THEN min(m.new ->> 'id') END FROM journal.change AS m
            WHERE m.xid = c.xid AND m.tbl = 'organization_members' AND m.op = 'INSERT'
              AND m.new ->> 'organization' = c.new ->> 'name'
              AND m.new ->> 'kind' = 'UserMember' AND m.new ->> 'role' = 'Creator')
    FROM journal.change AS c WHERE tbl = 'organizations'
    UNION ALL
    SELECT seq, xid, op, old, new, 'project', 'project', 'name',
           ARRAY['organization', 'category', 'subcategory', 'description'],
           journal.changed(old, new, ARRAY['description', 'organization', 'access_mode', 'gid', 'category', 'subcategory', 'created']),
           (SELECT CASE count(*) WHEN 1 THEN min(m.new ->> 'username') END FROM journal.change AS m
            WHERE m.xid = c.xid AND m.tbl = 'project_members' AND m.op = 'INSERT'
              AND m.new ->> 'project' = c.new ->> 'name' AND m.new ->> 'role' = 'Creator')
    FROM journal.change AS c WHERE tbl = 'projects'
),
entity_event AS (
    -- The life of the entity: at most one of these for a change.
    SELECT seq, xid, op, old, new, prefix, subject_type, key, facts, changed, creator,
           CASE op
               WHEN 'INSERT' THEN 'created'
               WHEN 'DELETE' THEN CASE WHEN old ->> 'state' IN ('NotSet', 'Pending') THEN 'declined' ELSE 'deleted' END
               WHEN 'UPDATE' THEN
                   CASE
                       WHEN old ->> 'state' = new ->> 'state' THEN NULL
                       WHEN new ->> 'state' = 'Frozen' THEN 'frozen'
                       WHEN new ->> 'state' = 'Active' AND old ->> 'state' = 'Frozen' THEN 'unfrozen'
                       WHEN new ->> 'state' = 'Active' THEN 'activated'
                       ELSE 'state_changed'
                   END
           END AS verb
    FROM entity
    UNION ALL
    -- Other columns may change in the same UPDATE, and are then told beside it.
    SELECT seq, xid, op, old, new, prefix, subject_type, key, facts, changed, creator, 'updated'
    FROM entity WHERE op = 'UPDATE' AND changed IS NOT NULL
    UNION ALL
    SELECT seq, xid, op, old, new, prefix, subject_type, key, facts, changed, creator, 'renamed'
    FROM entity WHERE op = 'UPDATE' AND old -> key <> new -> key
),
-- Both member tables in the form of the wider one. A project's members are always users.
member AS (
    SELECT seq, xid, op, 'org' AS prefix, 'organization' AS subject_type,
           old ->> 'organization' AS old_entity, old ->> 'kind' AS old_kind, old ->> 'id' AS old_id,
           old ->> 'role' AS old_role, old ->> 'state' AS old_state,
           new ->> 'organization' AS new_entity, new ->> 'kind' AS new_kind, new ->> 'id' AS new_id,
           new ->> 'role' AS new_role, new ->> 'state' AS new_state
    FROM journal.change WHERE tbl = 'organization_members'
    UNION ALL
    SELECT seq, xid, op, 'project', 'project',
           old ->> 'project', CASE WHEN old IS NOT NULL THEN 'UserMember' END, old ->> 'username', old ->> 'role', old ->> 'state',
           new ->> 'project', CASE WHEN new IS NOT NULL THEN 'UserMember' END, new ->> 'username', new ->> 'role', new ->> 'state'
    FROM journal.change WHERE tbl = 'project_members'
),
keyed_member AS (
    SELECT *,
           op = 'UPDATE' AND (old_entity, old_kind, old_id) IS DISTINCT FROM (new_entity, new_kind, new_id) AS moved
    FROM member
),
member_event AS (
    -- Who was a member, and is one no longer. A row whose key changes stands for somebody else from then on.
    SELECT seq, xid, prefix || '_member_deleted' AS event_type, old_entity AS subject, subject_type, old_id AS target,
           jsonb_build_object('kind', lower(old_kind)) AS payload
    FROM keyed_member WHERE op = 'DELETE' OR moved
    UNION ALL
    SELECT seq, xid,
           prefix || CASE WHEN new_state = 'Active' THEN '_member_added' ELSE '_member_requested' END,
           new_entity, subject_type, new_id,
           jsonb_build_object('kind', lower(new_kind), 'role', lower(new_role), 'state', lower(new_state))
    FROM keyed_member
    WHERE op = 'INSERT' OR moved OR (op = 'UPDATE' AND new_state = 'Active' AND old_state <> 'Active')
    UNION ALL
    -- Losing the membership, or one kind of request for another.
    SELECT seq, xid, prefix || '_member_state_changed', new_entity, subject_type, new_id,
           jsonb_build_object('kind', lower(new_kind), 'role', lower(new_role),
                              'state', lower(new_state), 'old_state', lower(old_state))
    FROM keyed_member
    WHERE op = 'UPDATE' AND NOT moved AND new_state <> old_state AND new_state <> 'Active'
    UNION ALL
    -- All of the above say the new role. Where none of them applies, it has its own event.
    SELECT seq, xid, prefix || '_member_updated', new_entity, subject_type, new_id,
           jsonb_build_object('kind', lower(new_kind), 'role', lower(new_role), 'old_role', lower(old_role),
                              'state', lower(new_state))
    FROM keyed_member
    WHERE op = 'UPDATE' AND NOT moved AND new_state = old_state AND new_role <> old_role
),
experiment AS (
    SELECT seq, xid, op, old, new,
           journal.changed(old, new, ARRAY['description', 'access_mode', 'repository', 'creator', 'maintainers', 'created']) AS changed
    FROM journal.change WHERE tbl = 'experiments'
),
experiment_event AS (
    SELECT seq, xid, 'experiment_created' AS event_type, new ->> 'name' AS subject,
           jsonb_build_object('project', new -> 'project') AS payload, nullif(new ->> 'creator', '') AS row_caller
    FROM experiment WHERE op = 'INSERT'
    UNION ALL
    SELECT seq, xid, 'experiment_deleted', old ->> 'name', jsonb_build_object('project', old -> 'project'), NULL
    FROM experiment WHERE op = 'DELETE'
    UNION ALL
    SELECT seq, xid, 'experiment_updated', new ->> 'name',
           jsonb_build_object('project', new -> 'project', 'changed', changed), NULL
    FROM experiment WHERE op = 'UPDATE' AND changed IS NOT NULL
    UNION ALL
    SELECT seq, xid, 'experiment_renamed', new ->> 'name',
           jsonb_build_object('project', new -> 'project', 'old_project', old -> 'project', 'old_name', old -> 'name'), NULL
    FROM experiment WHERE op = 'UPDATE' AND (old -> 'project', old -> 'name') <> (new -> 'project', new -> 'name')
)
SELECT seq, xid, prefix || '_' || verb AS event_type, coalesce(new, old) ->> key AS subject, subject_type, NULL::text AS target,
       TRUE AS success, NULL::text AS error_message,
       -- jsonb_strip_nulls: a column that is NULL has no key in the payload.
       jsonb_strip_nulls(
           CASE
               WHEN verb = 'renamed' THEN jsonb_build_object('old_name', old -> key)
               ELSE (SELECT jsonb_object_agg(fact, coalesce(new, old) -> fact) FROM unnest(facts) AS fact)
           END
           || CASE WHEN verb IN ('created', 'state_changed') THEN jsonb_build_object('state', lower(new ->> 'state')) ELSE '{}' END
           || CASE WHEN verb NOT IN ('created', 'updated', 'renamed')
                   THEN jsonb_build_object('old_state', lower(old ->> 'state')) ELSE '{}' END
           || CASE WHEN verb = 'updated' THEN jsonb_build_object('changed', changed) ELSE '{}' END
           || CASE WHEN verb = 'updated' AND prefix = 'user' THEN jsonb_build_object('admin', new -> 'admin') ELSE '{}' END
       ) AS payload,
       CASE WHEN verb = 'created' THEN creator END AS row_caller
FROM entity_event WHERE verb IS NOT NULL
UNION ALL
SELECT seq, xid, event_type, subject, subject_type, target, TRUE, NULL, payload, NULL
FROM member_event
UNION ALL
SELECT seq, xid, event_type, subject, 'experiment', NULL, TRUE, NULL, payload, row_caller
FROM experiment_event;
COMMENT ON VIEW journal.expected_people IS 'Events of users, organizations, projects, their members, and experiments.';
