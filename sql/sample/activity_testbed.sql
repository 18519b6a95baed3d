-- Life for the sample portal, continued: models, realizations, materializations, facilities, pools, keys, tokens and XDCs.
-- It runs after activity.sql, whose rules hold here too: whoever works below an experiment, a facility or a user locks that row
-- first and waits for nobody.
INSERT INTO activity.action (name, weight, counts, at_most, instead) VALUES
    ('model_push',             44, 'portal.experiment_models', 200, 'model_delete'),
    ('model_compile',          50, NULL, NULL, NULL),
    ('model_delete',            5, NULL, NULL, NULL),
    ('realize',                46, 'portal.realizations',       90, 'relinquish'),
    ('realization_answer',     24, NULL, NULL, NULL),
    ('realization_count',      12, NULL, NULL, NULL),
    ('realization_extend',     20, NULL, NULL, NULL),
    ('realization_expire',     14, NULL, NULL, NULL),
    ('relinquish',             16, NULL, NULL, NULL),
    ('resources_move',         14, NULL, NULL, NULL),
    ('resources_measure',       8, NULL, NULL, NULL),
    ('materialize',            36, NULL, NULL, NULL),
    ('materialization_report', 60, NULL, NULL, NULL),
    ('dematerialize',          16, NULL, NULL, NULL),
    ('facility_register',       6, 'portal.facilities',          8, 'facility_delete'),
    ('facility_update',         8, NULL, NULL, NULL),
    ('facility_certificate',    8, NULL, NULL, NULL),
    ('facility_switch',        26, NULL, NULL, NULL),
    ('facility_resources',     12, 'portal.facility_resources', 400, 'facility_switch'),
    ('facility_member',        16, NULL, NULL, NULL),
    ('facility_delete',         2, NULL, NULL, NULL),
    ('pool_create',             6, 'portal.pools',              12, 'pool_delete'),
    ('pool_update',            16, NULL, NULL, NULL),
    ('pool_delete',             2, NULL, NULL, NULL),
    ('key_add',                18, 'portal.public_keys',       120, 'key_delete'),
    ('key_delete',              7, NULL, NULL, NULL),
    ('token_create',           18, 'portal.api_tokens',        120, 'token_delete'),
    ('token_use',              24, NULL, NULL, NULL),
    ('token_revoke',            8, NULL, NULL, NULL),
    ('token_delete',            5, NULL, NULL, NULL),
    ('xdc_create',             14, 'portal.xdcs',               60, 'xdc_delete'),
    ('xdc_attach',             24, NULL, NULL, NULL),
    ('xdc_detach',             12, NULL, NULL, NULL),
    ('xdc_delete',              6, NULL, NULL, NULL);
UPDATE activity.action AS a SET upto = s.upto
FROM (SELECT name, sum(weight) OVER (ORDER BY name) AS upto FROM activity.action) AS s
WHERE s.name = a.name;

-- Text that does not compress, so that a long one is stored out of line.
CREATE FUNCTION activity.noise(seed BIGINT, words INTEGER) RETURNS TEXT
LANGUAGE sql IMMUTABLE
AS $$ SELECT coalesce(string_agg(md5(seed || ' ' || n), E'\n'), '') FROM generate_series(1, words) AS n $$;
COMMENT ON FUNCTION activity.noise(BIGINT, INTEGER) IS 'Lines of 32 hexadecimal digits that depend on the seed.';

CREATE FUNCTION activity.pick_facility(seed BIGINT) RETURNS TEXT
LANGUAGE sql
AS $$
    SELECT name FROM portal.facilities ORDER BY hashtextextended(name, seed) LIMIT 1 FOR UPDATE SKIP LOCKED
$$;
COMMENT ON FUNCTION activity.pick_facility(BIGINT) IS 'A facility, locked; NULL if there is none.';

-- An answered realization, one that waits, or any.
CREATE FUNCTION activity.pick_realization(seed BIGINT, wanted TEXT) RETURNS portal.realizations
LANGUAGE sql
AS $$
    SELECT r FROM portal.realizations AS r
    WHERE CASE wanted WHEN 'Ok' THEN code = 'Ok' WHEN 'waiting' THEN code IS NULL WHEN 'expired' THEN expires < now() ELSE TRUE END
    ORDER BY hashtextextended(pid || '/' || eid || '/' || id, seed) LIMIT 1 FOR UPDATE SKIP LOCKED
$$;
COMMENT ON FUNCTION activity.pick_realization(BIGINT, TEXT) IS 'A realization that is Ok, waiting, expired or any, locked; all NULL if there is none.';

CREATE FUNCTION activity.pick_xdc(seed BIGINT, attached BOOLEAN) RETURNS portal.xdcs
LANGUAGE sql
AS $$
    SELECT x FROM portal.xdcs AS x WHERE attached IS NULL OR (materialization IS NOT NULL) = attached
    ORDER BY hashtextextended(project || '/' || name, seed) LIMIT 1 FOR UPDATE SKIP LOCKED
$$;
COMMENT ON FUNCTION activity.pick_xdc(BIGINT, BOOLEAN) IS 'An XDC that is attached, is not, or either, locked; all NULL if there is none.';

-- Somebody who has a key or a token.
CREATE FUNCTION activity.pick_owner(seed BIGINT, things REGCLASS) RETURNS TEXT
LANGUAGE plpgsql
AS $$
DECLARE
    it TEXT;
BEGIN
    EXECUTE format('SELECT username FROM portal.users AS u WHERE EXISTS (SELECT FROM %s AS t WHERE t.username = u.username)
                    ORDER BY hashtextextended(username, $1) LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED', things) INTO it USING seed;
    RETURN it;
END $$;
COMMENT ON FUNCTION activity.pick_owner(BIGINT, REGCLASS) IS 'A user with a row in this table, locked; NULL if there is none.';

-- Places the nodes of a realization: up to six, some of them virtual, on machines that are in service.
CREATE FUNCTION activity.allocate(seed BIGINT, pid TEXT, eid TEXT, rid TEXT) RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt)
    SELECT $2, $3, $4, r.facility, r.resource, 'n' || r.n, activity.dice(seed, 'virt' || r.n, 3) > 0
    FROM (SELECT facility, resource, row_number() OVER (ORDER BY hashtextextended(facility || '/' || resource, seed)) AS n
          FROM portal.facility_resources WHERE active) AS r
    WHERE r.n <= 1 + activity.dice(seed, 'nodes', 6)
    ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION activity.allocate(BIGINT, TEXT, TEXT, TEXT) IS 'Gives a realization machines in service.';

-- Models, realizations and materializations; says whether there was anything to do.
CREATE FUNCTION activity.act_on_experiment(seed BIGINT, action TEXT) RETURNS BOOLEAN
LANGUAGE plpgsql
AS $$
DECLARE
    e portal.experiments;
    m portal.experiment_models;
    r portal.realizations;
    mat portal.materializations;
    done BOOLEAN := FALSE;
BEGIN
    CASE action
    WHEN 'model_push' THEN
        -- Most are short; some are stored out of line, and a few are longer than an event takes.
        e := activity.pick_experiment(seed);
        PERFORM activity.act_as(seed, e.creator);
        INSERT INTO portal.experiment_models (project, experiment, revision, branch, tag, model_file)
        SELECT e.project, e.name, left(md5('revision' || seed), 7), 'main',
               CASE activity.dice(seed, 'tag', 4) WHEN 0 THEN 'v' || activity.dice(seed, 'version', 9) END,
               CASE activity.dice(seed, 'size', 12)
                   WHEN 0 THEN NULL
                   WHEN 1 THEN activity.noise(seed, 2200)
                   WHEN 2 THEN activity.noise(seed, 200)
                   ELSE format(E'from mergexp import *\nnet = Network(%L)\n# %s\nexperiment(net)\n', e.name, seed)
               END
        WHERE e.name IS NOT NULL ON CONFLICT DO NOTHING;
        done := FOUND;
    WHEN 'model_compile' THEN
        SELECT * INTO m FROM portal.experiment_models WHERE in_progress
        ORDER BY hashtextextended(revision, seed) LIMIT 1 FOR UPDATE SKIP LOCKED;
        UPDATE portal.experiment_models
        SET in_progress = FALSE, compile_time = now(), compiled = activity.dice(seed, 'well', 4) > 0,
            msg = CASE activity.dice(seed, 'well', 4) WHEN 0 THEN 'line 2: name ''Netwrok'' is not defined' ELSE '' END
        WHERE (project, experiment, revision) = (m.project, m.experiment, m.revision);
        done := FOUND;
    WHEN 'model_delete' THEN
        e := activity.pick_experiment(seed);
        PERFORM activity.act_as(seed, e.creator);
        DELETE FROM portal.experiment_models WHERE (project, experiment) = (e.project, e.name)
           AND revision = (SELECT min(revision) FROM portal.experiment_models WHERE (project, experiment) = (e.project, e.name));
        done := FOUND;
    WHEN 'realize' THEN
        -- Answered at once with what it was given or why not, or later. Few names, so that they come back.
        SELECT x.* INTO e FROM portal.experiments AS x
        WHERE EXISTS (SELECT FROM portal.experiment_models AS c WHERE (c.project, c.experiment) = (x.project, x.name) AND c.compiled)
        ORDER BY hashtextextended(x.project || '/' || x.name, seed) LIMIT 1 FOR UPDATE SKIP LOCKED;
        PERFORM activity.act_as(seed, e.creator);
        INSERT INTO portal.realizations AS n (pid, eid, id, revision, tag, creator, expires, code, complete, diagnostics, links)
        SELECT e.project, e.name, (ARRAY['one', 'two', 'demo'])[1 + activity.dice(seed, 'name', 3)],
               CASE activity.dice(seed, 'by', 8) WHEN 0 THEN NULL ELSE
                   (SELECT c.revision FROM portal.experiment_models AS c WHERE (c.project, c.experiment) = (e.project, e.name) AND c.compiled
                    ORDER BY hashtextextended(c.revision, seed) LIMIT 1) END,
               CASE activity.dice(seed, 'by', 8) WHEN 0 THEN 'v1' END, e.creator,
               now() + (ARRAY[NULL, '1 second', '4 seconds', '1 day', '7 days'])[1 + activity.dice(seed, 'long', 5)]::interval,
               a.code, a.code IS NOT NULL,
               CASE WHEN a.code <> 'Ok' THEN '[{"level": "Info", "message": "3 facilities tried"}, {"level": "Error", "message": "no resource for node n4"}, {"level": "Error", "message": "no resource for node n5"}]'::jsonb ELSE '[]' END,
               CASE WHEN a.code = 'Ok' THEN '{"lan0": {"link": "lan0"}, "wan": {"link": "wan", "segments": []}}'::jsonb ELSE '{}' END
        FROM (SELECT (ARRAY['Ok', 'Ok', 'Ok', 'Ok', 'Unrealizable', 'BadXir', NULL, NULL, NULL])[1 + activity.dice(seed, 'code', 9)] AS code) AS a
        WHERE e.name IS NOT NULL
        ON CONFLICT DO NOTHING RETURNING n.* INTO r;
        done := FOUND;
        IF r.code = 'Ok' THEN
            PERFORM activity.allocate(seed, r.pid, r.eid, r.id);
        END IF;
    WHEN 'realization_answer' THEN
        r := activity.pick_realization(seed, 'waiting');
        PERFORM activity.allocate(seed, r.pid, r.eid, r.id) WHERE activity.dice(seed, 'well', 4) > 0 AND r.id IS NOT NULL;
        UPDATE portal.realizations
        SET code = CASE activity.dice(seed, 'well', 4) WHEN 0 THEN 'InternalError' ELSE 'Ok' END, complete = TRUE, ver = ver + 1,
            diagnostics = CASE activity.dice(seed, 'well', 4) WHEN 0 THEN '[{"level": "Error", "message": "the embedding took too long"}]'::jsonb ELSE '[]' END,
            links = CASE activity.dice(seed, 'well', 4) WHEN 0 THEN links ELSE '{"mesh": {"link": "mesh"}}' END
        WHERE (pid, eid, id) = (r.pid, r.eid, r.id);
        done := FOUND;
    WHEN 'realization_count' THEN
        r := activity.pick_realization(seed, 'any');
        UPDATE portal.realizations SET ver = ver + 1, xhash = md5(seed::text) WHERE (pid, eid, id) = (r.pid, r.eid, r.id);
        done := FOUND;
    WHEN 'realization_extend' THEN
        r := activity.pick_realization(seed, 'any');
        PERFORM activity.act_as(seed, r.creator);
        UPDATE portal.realizations SET expires = coalesce(expires, now()) + INTERVAL '1 day', ver = ver + 1
        WHERE (pid, eid, id) = (r.pid, r.eid, r.id);
        done := FOUND;
    WHEN 'realization_expire', 'relinquish' THEN
        -- Machines and a materialization go with it.
        r := activity.pick_realization(seed, CASE action WHEN 'relinquish' THEN 'any' ELSE 'expired' END);
        PERFORM activity.act_as(seed, CASE action WHEN 'relinquish' THEN r.creator END);
        DELETE FROM portal.realizations WHERE (pid, eid, id) = (r.pid, r.eid, r.id);
        done := FOUND;
    WHEN 'resources_move' THEN
        r := activity.pick_realization(seed, 'Ok');
        DELETE FROM portal.allocations WHERE (pid, eid, rid) = (r.pid, r.eid, r.id) AND virt;
        done := FOUND;
        IF done AND activity.dice(seed, 'more', 2) = 0 THEN
            PERFORM activity.allocate(seed, r.pid, r.eid, r.id);
        END IF;
    WHEN 'resources_measure' THEN
        r := activity.pick_realization(seed, 'Ok');
        UPDATE portal.allocations SET cores_used = activity.dice(seed, 'cores', 64) WHERE (pid, eid, rid) = (r.pid, r.eid, r.id);
        done := FOUND;
    WHEN 'materialize' THEN
        r := activity.pick_realization(seed, 'Ok');
        PERFORM activity.act_as(seed, r.creator);
        INSERT INTO portal.materializations (pid, eid, rid, metal, vms, links)
        SELECT r.pid, r.eid, r.id,
               coalesce(jsonb_agg(jsonb_build_object('facility', a.fid, 'resource', a.resource)) FILTER (WHERE NOT a.virt), '[]'),
               coalesce(jsonb_agg(jsonb_build_object('vm_alloc', jsonb_build_object('node', a.node, 'resource', a.resource))) FILTER (WHERE a.virt), '[]'),
               jsonb_path_query_array(r.links, '$.*')
        FROM portal.allocations AS a WHERE (a.pid, a.eid, a.rid) = (r.pid, r.eid, r.id) AND r.id IS NOT NULL
        HAVING r.id IS NOT NULL
        ON CONFLICT DO NOTHING;
        done := FOUND;
    WHEN 'materialization_report' THEN
        SELECT * INTO mat FROM portal.materializations WHERE highest_status <> 'Success'
        ORDER BY hashtextextended(pid || '/' || eid || '/' || rid, seed) LIMIT 1 FOR UPDATE SKIP LOCKED;
        UPDATE portal.materializations
        SET highest_status = s.status, last_updated = now(),
            messages = CASE s.status WHEN 'Error' THEN '[{"level": "Info", "message": "imaging"}, {"level": "Error", "message": "a machine does not answer"}]'::jsonb ELSE '[]' END
        FROM (SELECT (ARRAY['Processing', 'Processing', 'Success', 'Success', 'Error'])[1 + activity.dice(seed, 'status', 5)] AS status) AS s
        WHERE (pid, eid, rid) = (mat.pid, mat.eid, mat.rid);
        done := FOUND;
    WHEN 'dematerialize' THEN
        SELECT * INTO mat FROM portal.materializations
        ORDER BY hashtextextended(pid || '/' || eid || '/' || rid, seed) LIMIT 1 FOR UPDATE SKIP LOCKED;
        DELETE FROM portal.materializations WHERE (pid, eid, rid) = (mat.pid, mat.eid, mat.rid);
        done := FOUND;
    END CASE;
    RETURN done;
END $$;
COMMENT ON FUNCTION activity.act_on_experiment(BIGINT, TEXT) IS 'One action around models, realizations and materializations.';

-- Facilities, pools, keys, tokens and XDCs; says whether there was anything to do.
CREATE FUNCTION activity.act_on_things(seed BIGINT, action TEXT) RETURNS BOOLEAN
LANGUAGE plpgsql
AS $$
DECLARE
    it TEXT;
    other TEXT;
    x portal.xdcs;
    done BOOLEAN := FALSE;
BEGIN
    CASE action
    WHEN 'facility_register' THEN
        PERFORM activity.act_as_admin(seed);
        other := activity.pick_user(seed, 'Active');
        it := activity.new_name(seed, ARRAY['hill', 'dale', 'coast', 'shed']);
        INSERT INTO portal.facilities (name, address, description, certificate, model)
        VALUES (it, it || '.example', 'Registered by ' || coalesce(other, 'nobody'), activity.noise(seed, 60), decode(md5(seed::text), 'hex'))
        ON CONFLICT DO NOTHING;
        done := FOUND;
        IF done AND other IS NOT NULL THEN
            INSERT INTO portal.facility_members (facility, username, role) VALUES (it, other, 'Creator');
        END IF;
        IF done THEN
            INSERT INTO portal.facility_resources (facility, resource, active)
            SELECT it, 'm' || n, activity.dice(seed, 'on' || n, 5) > 0 FROM generate_series(1, 4 + activity.dice(seed, 'rows', 30)) AS n;
        END IF;
    WHEN 'facility_update' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_facility(seed);
        UPDATE portal.facilities
        SET description = 'As of revision ' || (ver + 1), ver = ver + 1,
            access_mode = CASE activity.dice(seed, 'mode', 3) WHEN 0 THEN 'Protected' ELSE access_mode END
        WHERE name = it;
        done := FOUND;
    WHEN 'facility_certificate' THEN
        it := activity.pick_facility(seed);
        UPDATE portal.facilities SET certificate = activity.noise(seed, 60), ver = ver + 1 WHERE name = it;
        done := FOUND;
    WHEN 'facility_switch' THEN
        -- Many rows in one statement, some on and some off: an event of each kind.
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_facility(seed);
        UPDATE portal.facility_resources SET active = activity.dice(seed, 'on', 2) = 0
        WHERE facility = it AND activity.dice(seed, resource, 3) = 0;
        done := FOUND;
        IF activity.dice(seed, 'both', 4) = 0 THEN
            UPDATE portal.facility_resources SET active = NOT active WHERE facility = it AND activity.dice(seed, resource, 4) = 1;
        END IF;
    WHEN 'facility_resources' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_facility(seed);
        IF activity.dice(seed, 'way', 3) = 0 THEN
            DELETE FROM portal.facility_resources WHERE facility = it AND activity.dice(seed, resource, 4) = 0;
        ELSE
            INSERT INTO portal.facility_resources (facility, resource)
            SELECT it, 'x' || activity.dice(seed, 'x' || n, 500) FROM generate_series(1, 5) AS n WHERE it IS NOT NULL
            ON CONFLICT DO NOTHING;
        END IF;
        done := FOUND;
    WHEN 'facility_member' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_facility(seed);
        other := activity.pick_user(seed, 'Active');
        IF it IS NOT NULL AND other IS NOT NULL THEN
            INSERT INTO portal.facility_members AS m (facility, username, state)
            VALUES (it, other, CASE activity.dice(seed, 'asks', 4) WHEN 0 THEN 'MemberRequested' ELSE 'Active' END)
            ON CONFLICT (facility, username) DO UPDATE
            SET role = CASE m.role WHEN 'Member' THEN 'Maintainer' ELSE 'Member' END,
                state = CASE activity.dice(seed, 'agrees', 2) WHEN 0 THEN 'Active' ELSE m.state END;
            done := FOUND;
            DELETE FROM portal.facility_members
            WHERE facility = it AND activity.dice(seed, username, 6) = 0 AND role <> 'Creator' AND username <> other;
        END IF;
    WHEN 'facility_delete' THEN
        PERFORM activity.act_as_admin(seed);
        -- The three on the demo's map stay (registered_facilities.sql).
        SELECT name INTO it FROM portal.facilities WHERE name NOT IN ('quillmark', 'norrin', 'tessaly') ORDER BY hashtextextended(name, seed) LIMIT 1 FOR UPDATE SKIP LOCKED;
        DELETE FROM portal.facilities WHERE name = it;
        done := FOUND;
    WHEN 'pool_create' THEN
        other := activity.pick_user(seed, 'Active');
        PERFORM activity.act_as(seed, other);
        INSERT INTO portal.pools (name, description, creator, priority, projects)
        SELECT activity.new_name(seed, ARRAY['pool', 'share']), 'Made by ' || other, other, activity.dice(seed, 'priority', 10),
               ARRAY(SELECT name FROM portal.projects ORDER BY hashtextextended(name, seed) LIMIT activity.dice(seed, 'few', 4))
        WHERE other IS NOT NULL ON CONFLICT DO NOTHING;
        done := FOUND;
    WHEN 'pool_update' THEN
        PERFORM activity.act_as_admin(seed);
        SELECT name INTO it FROM portal.pools ORDER BY hashtextextended(name, seed) LIMIT 1 FOR UPDATE SKIP LOCKED;
        UPDATE portal.pools
        SET ver = ver + 1,
            priority = CASE activity.dice(seed, 'what', 3) WHEN 0 THEN priority + 1 ELSE priority END,
            projects = CASE activity.dice(seed, 'what', 3) WHEN 0 THEN projects
                       ELSE ARRAY(SELECT name FROM portal.projects ORDER BY hashtextextended(name, seed) LIMIT 3) || projects[1:2] END
        WHERE name = it;
        done := FOUND;
    WHEN 'pool_delete' THEN
        PERFORM activity.act_as_admin(seed);
        SELECT name INTO it FROM portal.pools ORDER BY hashtextextended(name, seed) LIMIT 1 FOR UPDATE SKIP LOCKED;
        DELETE FROM portal.pools WHERE name = it;
        done := FOUND;
    WHEN 'key_add' THEN
        it := activity.pick_user(seed, 'Active');
        PERFORM activity.act_as(seed, it);
        INSERT INTO portal.public_keys (username, fingerprint, key)
        SELECT it, 'SHA256:' || left(md5(seed::text), 12), 'ssh-ed25519 ' || md5(seed::text) WHERE it IS NOT NULL ON CONFLICT DO NOTHING;
        done := FOUND;
    WHEN 'key_delete' THEN
        it := activity.pick_owner(seed, 'portal.public_keys');
        PERFORM activity.act_as(seed, it);
        DELETE FROM portal.public_keys WHERE username = it;
        done := FOUND;
    WHEN 'token_create' THEN
        it := activity.pick_user(seed, 'Active');
        PERFORM activity.act_as(seed, it);
        INSERT INTO portal.api_tokens (id, username, description, token_hash, expires)
        SELECT md5('token' || seed)::uuid, it, (ARRAY['laptop', 'nightly job', 'course scripts'])[1 + activity.dice(seed, 'for', 3)],
               md5(seed::text), CASE activity.dice(seed, 'ends', 2) WHEN 0 THEN now() + INTERVAL '90 days' END
        WHERE it IS NOT NULL ON CONFLICT DO NOTHING;
        done := FOUND;
    WHEN 'token_use', 'token_revoke', 'token_delete' THEN
        it := activity.pick_owner(seed, 'portal.api_tokens');
        PERFORM activity.act_as(seed, CASE action WHEN 'token_use' THEN NULL ELSE it END);
        IF action = 'token_use' THEN
            UPDATE portal.api_tokens SET last_used = now() WHERE username = it AND NOT revoked;
        ELSIF action = 'token_revoke' THEN
            UPDATE portal.api_tokens SET revoked = TRUE WHERE username = it;
        ELSE
            DELETE FROM portal.api_tokens WHERE username = it AND (revoked OR activity.dice(seed, 'all', 2) = 0);
        END IF;
        done := FOUND;
    WHEN 'xdc_create' THEN
        it := activity.pick_project(seed, 'Active');
        SELECT m.username INTO other FROM portal.project_members AS m
        WHERE m.project = it ORDER BY hashtextextended(m.username, seed) LIMIT 1;
        PERFORM activity.act_as(seed, other);
        INSERT INTO portal.xdcs (project, name, creator, type, image, expires)
        SELECT it, activity.new_name(seed, ARRAY['desk', 'bench']), other,
               CASE activity.dice(seed, 'type', 3) WHEN 0 THEN 'personal' ELSE 'shared' END, 'xdc-base',
               CASE activity.dice(seed, 'ends', 2) WHEN 0 THEN now() + INTERVAL '30 days' END
        WHERE other IS NOT NULL ON CONFLICT DO NOTHING;
        done := FOUND;
    WHEN 'xdc_attach' THEN
        x := activity.pick_xdc(seed, NULL);
        PERFORM activity.act_as(seed, x.creator);
        UPDATE portal.xdcs
        SET materialization = (SELECT format('%s.%s.%s', rid, eid, pid) FROM portal.materializations
                               ORDER BY pid <> x.project, hashtextextended(pid || '/' || eid || '/' || rid, seed) LIMIT 1)
        WHERE (project, name) = (x.project, x.name);
        done := FOUND;
    WHEN 'xdc_detach' THEN
        x := activity.pick_xdc(seed, TRUE);
        PERFORM activity.act_as(seed, x.creator);
        UPDATE portal.xdcs SET materialization = NULL WHERE (project, name) = (x.project, x.name);
        done := FOUND;
    WHEN 'xdc_delete' THEN
        x := activity.pick_xdc(seed, NULL);
        PERFORM activity.act_as(seed, x.creator);
        DELETE FROM portal.xdcs WHERE (project, name) = (x.project, x.name);
        done := FOUND;
    END CASE;
    RETURN done;
END $$;
COMMENT ON FUNCTION activity.act_on_things(BIGINT, TEXT) IS 'One action around facilities, pools, keys, tokens and XDCs.';
