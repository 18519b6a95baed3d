-- The oracle, continued: facilities, pools, keys, tokens and XDCs; what caused what; and the whole. It runs after
-- journal_experiments.sql.

CREATE VIEW journal.expected_facilities AS
WITH
facility AS (
    SELECT seq, xid, op, old, new, coalesce(new, old) ->> 'name' AS subject,
           jsonb_build_object('address', coalesce(new, old) -> 'address', 'description', coalesce(new, old) -> 'description') AS facts,
           jsonb_build_object('access_mode', lower(new ->> 'access_mode')) AS access,
           journal.changed(old, new, ARRAY['address', 'description', 'access_mode']) AS changed
    FROM journal.change WHERE tbl = 'facilities'
),
facility_event AS (
    SELECT seq, xid, 'facility_registered' AS event_type, subject, facts || access AS payload,
           (SELECT CASE count(*) WHEN 1 THEN min(m.new ->> 'username') END FROM journal.change AS m
            WHERE m.xid = f.xid AND m.tbl = 'facility_members' AND m.op = 'INSERT'
              AND m.new ->> 'facility' = f.subject AND m.new ->> 'role' = 'Creator') AS row_caller
    FROM facility AS f WHERE op = 'INSERT'
    UNION ALL
    SELECT seq, xid, 'facility_updated', subject, facts || access || jsonb_build_object('changed', changed), NULL
    FROM facility WHERE op = 'UPDATE' AND changed IS NOT NULL
    UNION ALL
    SELECT seq, xid, 'facility_deleted', subject, facts, NULL
    FROM facility WHERE op = 'DELETE'
),
member AS (
    SELECT seq, xid, op, old, new, coalesce(new, old) AS r,
           jsonb_build_object('kind', 'usermember', 'role', lower(new ->> 'role'), 'state', lower(new ->> 'state')) AS facts
    FROM journal.change WHERE tbl = 'facility_members'
),
member_event AS (
    SELECT seq, xid, 'facility_member_added' AS event_type, r, facts AS payload
    FROM member
    WHERE new ->> 'state' = 'Active' AND (op = 'INSERT' OR (op = 'UPDATE' AND old ->> 'state' <> 'Active'))
    UNION ALL
    SELECT seq, xid, 'facility_member_updated', r, facts || jsonb_build_object('old_role', lower(old ->> 'role'))
    FROM member WHERE op = 'UPDATE' AND old -> 'role' <> new -> 'role' AND old -> 'state' = new -> 'state'
    UNION ALL
    SELECT seq, xid, 'facility_member_deleted', r, jsonb_build_object('kind', 'usermember', 'old_role', lower(old ->> 'role'))
    FROM member WHERE op = 'DELETE'
),
-- All that one transaction does in the same way to the resources of a facility is one event.
resource_event AS (
    SELECT min(seq) AS seq, xid, 'facility_resources_' || verb AS event_type, facility AS subject,
           jsonb_build_object('resources', journal.list(array_agg(resource ORDER BY seq)))
           || CASE verb WHEN 'added' THEN jsonb_build_object('inactive', journal.list(array_agg(resource ORDER BY seq) FILTER (WHERE NOT active))) ELSE '{}' END AS payload
    FROM (
        SELECT seq, xid, (new ->> 'active')::boolean AS active, coalesce(new, old) ->> 'facility' AS facility, coalesce(new, old) ->> 'resource' AS resource,
               CASE op
                   WHEN 'INSERT' THEN 'added'
                   WHEN 'DELETE' THEN 'removed'
                   WHEN 'UPDATE' THEN
                       CASE WHEN old -> 'active' = new -> 'active' THEN NULL
                            WHEN (new ->> 'active')::boolean THEN 'activated' ELSE 'deactivated' END
               END AS verb
        FROM journal.change WHERE tbl = 'facility_resources'
    ) AS resource
    WHERE verb IS NOT NULL
    GROUP BY xid, facility, verb
)
SELECT seq, xid, event_type, subject, 'facility' AS subject_type, NULL::text AS target, payload, row_caller
FROM facility_event
UNION ALL
SELECT seq, xid, event_type, r ->> 'facility', 'facility', r ->> 'username', payload, NULL
FROM member_event
UNION ALL
SELECT seq, xid, event_type, subject, 'facility', NULL, payload, NULL
FROM resource_event;
COMMENT ON VIEW journal.expected_facilities IS 'Events of facilities, their members and their resources.';

CREATE VIEW journal.expected_things AS
WITH
pool AS (
    SELECT seq, xid, op, old, new, coalesce(new, old) AS r,
           jsonb_build_object('description', coalesce(new, old) -> 'description', 'priority', coalesce(new, old) -> 'priority') AS facts,
           journal.changed(old, new, ARRAY['description', 'priority', 'facilities', 'organizations']) AS changed
    FROM journal.change WHERE tbl = 'pools'
),
pool_event AS (
    SELECT seq, xid, 'pool_created' AS event_type, r, NULL::text AS target, facts AS payload,
           nullif(r ->> 'creator', '') AS row_caller
    FROM pool WHERE op = 'INSERT'
    UNION ALL
    SELECT seq, xid, 'pool_updated', r, NULL, facts || jsonb_build_object('changed', changed), NULL
    FROM pool WHERE op = 'UPDATE' AND changed IS NOT NULL
    UNION ALL
    SELECT seq, xid, 'pool_deleted', r, NULL, facts, NULL
    FROM pool WHERE op = 'DELETE'
    UNION ALL
    -- A project counts once, however often the list names it.
    SELECT DISTINCT seq, xid, 'pool_project_added', r, project, '{}'::jsonb, NULL
    FROM pool CROSS JOIN LATERAL jsonb_array_elements_text(new -> 'projects') AS project
    WHERE project IS NOT NULL AND (old IS NULL OR NOT old -> 'projects' ? project)
    UNION ALL
    SELECT DISTINCT seq, xid, 'pool_project_removed', r, project, '{}'::jsonb, NULL
    FROM pool CROSS JOIN LATERAL jsonb_array_elements_text(old -> 'projects') AS project
    WHERE project IS NOT NULL AND (new IS NULL OR NOT new -> 'projects' ? project)
),
key_event AS (
    SELECT seq, xid, CASE op WHEN 'INSERT' THEN 'public_key_added' ELSE 'public_key_deleted' END AS event_type,
           coalesce(new, old) AS r
    FROM journal.change WHERE tbl = 'public_keys' AND op IN ('INSERT', 'DELETE')
),
token_event AS (
    SELECT seq, xid, 'token_created' AS event_type, new AS r,
           jsonb_build_object('description', new -> 'description', 'expires', journal.time(new ->> 'expires')) AS payload
    FROM journal.change WHERE tbl = 'api_tokens' AND op = 'INSERT'
    UNION ALL
    SELECT seq, xid, 'token_revoked', new, jsonb_build_object('description', new -> 'description')
    FROM journal.change WHERE tbl = 'api_tokens' AND op = 'UPDATE' AND new -> 'revoked' = 'true' AND old -> 'revoked' = 'false'
    UNION ALL
    SELECT seq, xid, 'token_deleted', old, '{}'
    FROM journal.change WHERE tbl = 'api_tokens' AND op = 'DELETE'
),
xdc AS (
    SELECT seq, xid, op, old, new, coalesce(new, old) AS r, old ->> 'materialization' AS before, new ->> 'materialization' AS after,
           jsonb_build_object('xdc', coalesce(new, old) -> 'name', 'project', coalesce(new, old) -> 'project') AS names
    FROM journal.change WHERE tbl = 'xdcs'
),
xdc_event AS (
    SELECT seq, xid, 'xdc_created' AS event_type, r, NULL::text AS target,
           names || jsonb_build_object('kind', lower(r ->> 'type'), 'image', r -> 'image',
                                       'expires', journal.time(r ->> 'expires'), 'materialization', after) AS payload,
           nullif(r ->> 'creator', '') AS row_caller
    FROM xdc WHERE op = 'INSERT'
    UNION ALL
    SELECT seq, xid, 'xdc_attached', r, after, names || jsonb_build_object('old_materialization', before), NULL
    FROM xdc WHERE op = 'UPDATE' AND after IS NOT NULL AND after IS DISTINCT FROM before
    UNION ALL
    SELECT seq, xid, 'xdc_detached', r, before, names, NULL
    FROM xdc WHERE op = 'UPDATE' AND after IS NULL AND before IS NOT NULL
    UNION ALL
    SELECT seq, xid, 'xdc_deleted', r, NULL, names || jsonb_build_object('materialization', before), NULL
    FROM xdc WHERE op = 'DELETE'
)
SELECT seq, xid, event_type, r ->> 'name' AS subject, 'pool' AS subject_type, target, payload, row_caller
FROM pool_event
UNION ALL
SELECT seq, xid, event_type, r ->> 'username', 'user', r ->> 'fingerprint', '{}', NULL
FROM key_event
UNION ALL
SELECT seq, xid, event_type, r ->> 'username', 'user', r ->> 'id', jsonb_strip_nulls(payload), NULL
FROM token_event
UNION ALL
SELECT seq, xid, event_type, format('%s.%s', r ->> 'name', r ->> 'project'), 'xdc', target, jsonb_strip_nulls(payload), row_caller
FROM xdc_event;
COMMENT ON VIEW journal.expected_things IS 'Events of pools, public keys, API tokens and XDCs.';

-- What caused what. Whoever deletes a parent takes its children along, by a foreign key or row by row: the event of each child
-- then has the event of the highest ancestor that the same transaction deleted as its cause, in whichever order they went.
CREATE INDEX change_deleted ON journal.change (xid, tbl) WHERE op = 'DELETE';

-- The parents that a row may have, the nearer first where it has two.
CREATE FUNCTION journal.parents(tbl TEXT, r JSONB) RETURNS TABLE (turn INTEGER, parent TEXT, key JSONB)
LANGUAGE sql IMMUTABLE
AS $$
    SELECT p.turn, p.parent, p.key
    FROM (VALUES
        ('organization_members', 1, 'organizations', jsonb_build_object('name', r -> 'organization')),
        -- A user and a project may have one name, so the kind says whose row it is.
        ('organization_members', 2, 'users', CASE r ->> 'kind' WHEN 'UserMember' THEN jsonb_build_object('username', r -> 'id') END),
        ('organization_members', 3, 'projects', CASE r ->> 'kind' WHEN 'ProjectMember' THEN jsonb_build_object('name', r -> 'id') END),
        ('projects', 1, 'organizations', jsonb_build_object('name', r -> 'organization')),
        ('project_members', 1, 'projects', jsonb_build_object('name', r -> 'project')),
        ('project_members', 2, 'users', jsonb_build_object('username', r -> 'username')),
        ('experiments', 1, 'projects', jsonb_build_object('name', r -> 'project')),
        ('xdcs', 1, 'projects', jsonb_build_object('name', r -> 'project')),
        ('experiment_models', 1, 'experiments', jsonb_build_object('project', r -> 'project', 'name', r -> 'experiment')),
        ('realizations', 1, 'experiments', jsonb_build_object('project', r -> 'pid', 'name', r -> 'eid')),
        ('allocations', 1, 'realizations', jsonb_build_object('pid', r -> 'pid', 'eid', r -> 'eid', 'id', r -> 'rid')),
        ('materializations', 1, 'realizations', jsonb_build_object('pid', r -> 'pid', 'eid', r -> 'eid', 'id', r -> 'rid')),
        ('facility_members', 1, 'users', jsonb_build_object('username', r -> 'username')),
        ('facility_members', 2, 'facilities', jsonb_build_object('name', r -> 'facility')),
        ('facility_resources', 1, 'facilities', jsonb_build_object('name', r -> 'facility')),
        ('public_keys', 1, 'users', jsonb_build_object('username', r -> 'username')),
        ('api_tokens', 1, 'users', jsonb_build_object('username', r -> 'username'))
    ) AS p (child, turn, parent, key)
    WHERE p.child = tbl
$$;
COMMENT ON FUNCTION journal.parents(TEXT, JSONB) IS 'Tables and keys of the rows that a row belongs to.';

-- How the deletion of a parent is told: its event type and its subject.
CREATE FUNCTION journal.told(tbl TEXT, xid BIGINT, r JSONB) RETURNS TEXT
LANGUAGE sql STABLE
AS $$
    SELECT CASE
        WHEN tbl IN ('users', 'organizations', 'projects') THEN
            format('%s_%s %s', CASE tbl WHEN 'users' THEN 'user' WHEN 'organizations' THEN 'org' ELSE 'project' END,
                   CASE WHEN r ->> 'state' IN ('NotSet', 'Pending') THEN 'declined' ELSE 'deleted' END,
                   coalesce(r ->> 'username', r ->> 'name'))
        WHEN tbl = 'experiments' THEN format('experiment_deleted %s', r ->> 'name')
        WHEN tbl = 'facilities' THEN format('facility_deleted %s', r ->> 'name')
        WHEN tbl = 'realizations' THEN
            format('realization_%s %s.%s.%s',
                   CASE WHEN (r ->> 'expires')::timestamptz <= journal.committed(xid) THEN 'expired' ELSE 'relinquished' END,
                   r ->> 'id', r ->> 'eid', r ->> 'pid')
    END
$$;
COMMENT ON FUNCTION journal.told(TEXT, BIGINT, JSONB) IS 'Event type and subject of the event of a deleted parent.';

CREATE FUNCTION journal.cause(change_xid BIGINT, change_tbl TEXT, image JSONB) RETURNS TEXT
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    -- Lower than a child of its own table, so that nothing is climbed twice.
    child_tbl TEXT := change_tbl;
    child JSONB := image;
    highest journal.change;
    found_one journal.change;
BEGIN
    LOOP
        SELECT d.* INTO found_one
        FROM journal.parents(child_tbl, child) AS p
        JOIN journal.change AS d ON d.xid = change_xid AND d.op = 'DELETE' AND d.tbl = p.parent AND d.old @> p.key
        ORDER BY p.turn, d.seq DESC LIMIT 1;
        IF NOT FOUND THEN
            RETURN journal.told(highest.tbl, highest.xid, highest.old);
        END IF;
        highest := found_one;
        child_tbl := highest.tbl;
        child := highest.old;
    END LOOP;
END $$;
COMMENT ON FUNCTION journal.cause(BIGINT, TEXT, JSONB) IS 'Event of the highest deleted ancestor of a row in its transaction, if any.';

CREATE VIEW journal.expected AS
SELECT e.seq, e.xid, e.event_type, e.subject, e.subject_type, e.target, e.success, e.error_message, e.payload, e.row_caller,
       CASE
           -- The list of a deleted pool goes with the pool.
           WHEN c.op = 'DELETE' AND e.event_type = 'pool_project_removed' THEN 'pool_deleted ' || e.subject
           WHEN c.op IN ('UPDATE', 'DELETE') THEN journal.cause(c.xid, c.tbl, c.old)
       END AS cause
FROM (
    SELECT * FROM journal.expected_people
    UNION ALL
    SELECT * FROM journal.expected_experiments
    UNION ALL
    SELECT seq, xid, event_type, subject, subject_type, target, TRUE, NULL, payload, row_caller FROM journal.expected_facilities
    UNION ALL
    SELECT seq, xid, event_type, subject, subject_type, target, TRUE, NULL, payload, row_caller FROM journal.expected_things
) AS e
JOIN journal.change AS c USING (seq);
COMMENT ON VIEW journal.expected IS
    'The audit events that the committed changes must give; several for one change, none for an UPDATE that changed nothing but ver. TRUNCATE has no rows to tell of and is not here.';
COMMENT ON COLUMN journal.expected.row_caller IS
    'The caller as far as rows of the transaction say it: a creator, or the Creator among the first members. NULL: they do not.';
COMMENT ON COLUMN journal.expected.cause IS
    'Event type and subject of the event that this one is a part of: the deletion of an ancestor. NULL: none.';
