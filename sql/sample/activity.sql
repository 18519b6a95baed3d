-- Life for the sample portal: activity.act(seed) does one thing that a person would do there.
--
-- The seed decides what is done and to whom, over the rows as they are at that moment: one client with the same seeds on the
-- same portal always does the same. Many clients may call it at once, each call in a transaction of its own. None fails for
-- another's sake: a row that somebody holds or has taken away is passed over, and a call that finds nothing to do returns the
-- action's name with ' (nothing)'.
--
-- Two files: this one has people, organizations, projects and experiments; activity_testbed.sql, run after it, what they do with
-- the testbed.
--
-- Names of people, labs and projects are made of random words; all are invented.
CREATE SCHEMA activity;
COMMENT ON SCHEMA activity IS 'Generator of portal traffic for the demo and the tests. Never published.';

-- A number from 0 to n - 1. The salt makes several independent ones out of one seed.
CREATE FUNCTION activity.dice(seed BIGINT, salt TEXT, n INTEGER) RETURNS INTEGER
LANGUAGE sql IMMUTABLE
AS $$ SELECT (abs(hashtextextended(salt, seed) % n))::integer $$;
COMMENT ON FUNCTION activity.dice(BIGINT, TEXT, INTEGER) IS 'Number from 0 to n - 1 that depends on seed and salt alone.';

-- What happens how often, and how big a table may get before a creation turns into the deletion beside it.
CREATE TABLE activity.action (
    name    TEXT PRIMARY KEY,
    weight  INTEGER NOT NULL,
    -- upto: sum of the weights up to and with this row, filled below; the dice falls on the first row above it.
    upto    INTEGER NOT NULL DEFAULT 0,
    counts  REGCLASS,
    at_most INTEGER,
    instead TEXT
);
COMMENT ON TABLE activity.action IS 'Actions with their weights. With at_most rows in the table `counts`, `instead` is done.';
INSERT INTO activity.action (name, weight, counts, at_most, instead) VALUES
    ('user_register',        50, 'portal.users',                120, 'user_delete'),
    ('user_init',            30, NULL, NULL, NULL),
    ('user_activate',        50, NULL, NULL, NULL),
    ('user_freeze',          14, NULL, NULL, NULL),
    ('user_unfreeze',        16, NULL, NULL, NULL),
    ('user_reset',            4, NULL, NULL, NULL),
    ('user_update',          40, NULL, NULL, NULL),
    ('user_admin',            3, NULL, NULL, NULL),
    ('user_decline',         10, NULL, NULL, NULL),
    ('user_delete',           8, NULL, NULL, NULL),
    ('org_create',           20, 'portal.organizations',         30, 'org_delete'),
    ('org_activate',         20, NULL, NULL, NULL),
    ('org_freeze',            5, NULL, NULL, NULL),
    ('org_unfreeze',          6, NULL, NULL, NULL),
    ('org_reset',             2, NULL, NULL, NULL),
    ('org_update',           16, NULL, NULL, NULL),
    ('org_decline',           3, NULL, NULL, NULL),
    ('org_delete',            3, NULL, NULL, NULL),
    ('org_member_request',   60, 'portal.organization_members', 400, 'org_member_remove'),
    ('org_member_confirm',   60, NULL, NULL, NULL),
    ('org_member_role',      24, NULL, NULL, NULL),
    ('org_member_suspend',   10, NULL, NULL, NULL),
    ('org_member_remove',    20, NULL, NULL, NULL),
    ('org_member_import',    10, 'portal.organization_members', 350, 'org_member_remove'),
    ('project_create',       30, 'portal.projects',             180, 'project_delete'),
    ('project_activate',     26, NULL, NULL, NULL),
    ('project_freeze',        5, NULL, NULL, NULL),
    ('project_unfreeze',      6, NULL, NULL, NULL),
    ('project_reset',         2, NULL, NULL, NULL),
    ('project_update',       26, NULL, NULL, NULL),
    ('project_decline',       4, NULL, NULL, NULL),
    ('project_delete',        4, NULL, NULL, NULL),
    ('project_member_add',   50, 'portal.project_members',      450, 'project_member_remove'),
    ('project_member_role',  24, NULL, NULL, NULL),
    ('project_member_suspend', 8, NULL, NULL, NULL),
    ('project_member_remove', 24, NULL, NULL, NULL),
    ('project_member_import', 8, 'portal.project_members',      400, 'project_member_remove'),
    ('experiment_create',    80, 'portal.experiments',          240, 'experiment_delete'),
    ('experiment_update',    60, NULL, NULL, NULL),
    ('experiment_delete',    40, NULL, NULL, NULL),
    ('experiment_savepoint', 20, NULL, NULL, NULL),
    ('experiment_give_up',   10, NULL, NULL, NULL),
    ('write_nothing_new',    16, NULL, NULL, NULL);
UPDATE activity.action AS a SET upto = s.upto
FROM (SELECT name, sum(weight) OVER (ORDER BY name) AS upto FROM activity.action) AS s
WHERE s.name = a.name;

-- The name of the action that the seed falls on, after the bounds of the tables have been looked at.
CREATE FUNCTION activity.choose(seed BIGINT) RETURNS TEXT
LANGUAGE plpgsql
AS $$
DECLARE
    chosen activity.action;
    full_table BOOLEAN;
BEGIN
    SELECT a.* INTO chosen FROM activity.action AS a
    WHERE a.upto > activity.dice(seed, 'action', (SELECT max(upto) FROM activity.action))
    ORDER BY a.upto LIMIT 1;
    IF chosen.counts IS NOT NULL THEN
        EXECUTE format('SELECT count(*) >= $1 FROM %s', chosen.counts) INTO full_table USING chosen.at_most;
        IF full_table THEN
            RETURN chosen.instead;
        END IF;
    END IF;
    RETURN chosen.name;
END $$;
COMMENT ON FUNCTION activity.choose(BIGINT) IS 'The action that the seed falls on; a deletion if its table is full.';

-- Says for the rest of the transaction who acts. Now and then nobody is named, as a portal's background work would not be.
CREATE FUNCTION activity.act_as(seed BIGINT, caller TEXT) RETURNS void
LANGUAGE sql
AS $$
    SELECT set_config('portal.caller', CASE WHEN activity.dice(seed, 'anonymous', 12) = 0 THEN '' ELSE coalesce(caller, '') END, TRUE)
$$;
COMMENT ON FUNCTION activity.act_as(BIGINT, TEXT) IS 'Sets portal.caller for this transaction, for eleven seeds of twelve.';

CREATE FUNCTION activity.act_as_admin(seed BIGINT) RETURNS void
LANGUAGE sql
AS $$
    SELECT activity.act_as(seed, coalesce(
        (SELECT username FROM portal.users WHERE admin AND state = 'Active' ORDER BY hashtextextended(username, seed) LIMIT 1), 'admin'))
$$;
COMMENT ON FUNCTION activity.act_as_admin(BIGINT) IS 'Acts as one of the operators.';

CREATE FUNCTION activity.act_as_maintainer_of_org(seed BIGINT, organization TEXT) RETURNS void
LANGUAGE sql
AS $$
    SELECT activity.act_as(seed, coalesce(
        (SELECT m.id FROM portal.organization_members AS m
         WHERE m.organization = $2 AND m.kind = 'UserMember' AND m.role <> 'Member' AND m.state = 'Active'
         ORDER BY hashtextextended(m.id, seed) LIMIT 1), 'admin'))
$$;
COMMENT ON FUNCTION activity.act_as_maintainer_of_org(BIGINT, TEXT) IS 'Acts as one of the organization''s maintainers.';

CREATE FUNCTION activity.act_as_maintainer_of_project(seed BIGINT, project TEXT) RETURNS void
LANGUAGE sql
AS $$
    SELECT activity.act_as(seed, coalesce(
        (SELECT m.username FROM portal.project_members AS m
         WHERE m.project = $2 AND m.role <> 'Member' AND m.state = 'Active'
         ORDER BY hashtextextended(m.username, seed) LIMIT 1), 'admin'))
$$;
COMMENT ON FUNCTION activity.act_as_maintainer_of_project(BIGINT, TEXT) IS 'Acts as one of the project''s maintainers.';

-- Picks one row at random among those in the given states, and locks it. FOR NO KEY UPDATE lets others go on inserting rows
-- that refer to it; SKIP LOCKED never waits. So a call holds rows and waits for none of them, which leaves no room for a
-- deadlock: what remains to be waited for is an equal key that somebody is just inserting.
CREATE FUNCTION activity.pick_user(seed BIGINT, VARIADIC states TEXT[]) RETURNS TEXT
LANGUAGE sql
AS $$
    SELECT username FROM portal.users WHERE state = ANY (states)
    ORDER BY hashtextextended(username, seed) LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
$$;
COMMENT ON FUNCTION activity.pick_user(BIGINT, TEXT[]) IS 'A user in one of these states, locked; NULL if there is none.';

CREATE FUNCTION activity.pick_org(seed BIGINT, VARIADIC states TEXT[]) RETURNS TEXT
LANGUAGE sql
AS $$
    SELECT name FROM portal.organizations WHERE state = ANY (states)
    ORDER BY hashtextextended(name, seed) LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
$$;
COMMENT ON FUNCTION activity.pick_org(BIGINT, TEXT[]) IS 'An organization in one of these states, locked; NULL if there is none.';

CREATE FUNCTION activity.pick_project(seed BIGINT, VARIADIC states TEXT[]) RETURNS TEXT
LANGUAGE sql
AS $$
    SELECT name FROM portal.projects WHERE state = ANY (states)
    ORDER BY hashtextextended(name, seed) LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
$$;
COMMENT ON FUNCTION activity.pick_project(BIGINT, TEXT[]) IS 'A project in one of these states, locked; NULL if there is none.';

CREATE FUNCTION activity.pick_experiment(seed BIGINT) RETURNS portal.experiments
LANGUAGE sql
AS $$
    SELECT e FROM portal.experiments AS e
    ORDER BY hashtextextended(e.project || '/' || e.name, seed) LIMIT 1 FOR UPDATE SKIP LOCKED
$$;
COMMENT ON FUNCTION activity.pick_experiment(BIGINT) IS 'An experiment, locked; all NULL if there is none.';

CREATE FUNCTION activity.pick_org_member(seed BIGINT, VARIADIC states TEXT[]) RETURNS portal.organization_members
LANGUAGE sql
AS $$
    -- The Creator stays: an organization that nobody maintains would be a dead end for all that follows.
    SELECT m FROM portal.organization_members AS m WHERE m.state = ANY (states) AND m.role <> 'Creator'
    ORDER BY hashtextextended(m.organization || '/' || m.kind || '/' || m.id, seed) LIMIT 1 FOR UPDATE SKIP LOCKED
$$;
COMMENT ON FUNCTION activity.pick_org_member(BIGINT, TEXT[]) IS 'A member of an organization in one of these states, not its Creator, locked.';

CREATE FUNCTION activity.pick_project_member(seed BIGINT, VARIADIC states TEXT[]) RETURNS portal.project_members
LANGUAGE sql
AS $$
    SELECT m FROM portal.project_members AS m WHERE m.state = ANY (states) AND m.role <> 'Creator'
    ORDER BY hashtextextended(m.project || '/' || m.username, seed) LIMIT 1 FOR UPDATE SKIP LOCKED
$$;
COMMENT ON FUNCTION activity.pick_project_member(BIGINT, TEXT[]) IS 'A member of a project in one of these states, not its Creator, locked.';

-- A name as Merge wants it, ^[a-z][a-z0-9]*$ and at most 32 characters, made of two words and a number.
CREATE FUNCTION activity.new_name(seed BIGINT, words TEXT[]) RETURNS TEXT
LANGUAGE sql IMMUTABLE
AS $$
    SELECT (ARRAY['amber', 'birch', 'cedar', 'delta', 'ember', 'fjord', 'glade', 'heath', 'inlet', 'karst', 'lark', 'mesa',
                  'north', 'ochre', 'pine', 'quartz', 'ridge', 'slate', 'tide', 'vale'])[1 + activity.dice(seed, 'first', 20)]
        || words[1 + activity.dice(seed, 'second', array_length(words, 1))]
        || activity.dice(seed, 'number', 100000)
$$;
COMMENT ON FUNCTION activity.new_name(BIGINT, TEXT[]) IS 'A new name out of two words and a number.';

CREATE FUNCTION activity.act(seed BIGINT) RETURNS TEXT
LANGUAGE plpgsql
AS $$
DECLARE
    action TEXT := activity.choose(seed);
    -- Kept for one family at a time: the user, organization or project in hand, and a second one that joins it.
    it TEXT;
    other TEXT;
    org_member portal.organization_members;
    project_member portal.project_members;
    experiment portal.experiments;
    done BOOLEAN := TRUE;
BEGIN
    -- A cascade takes rows of several tables in an order that it chooses, and so could meet another call head-on. Whoever
    -- deletes a parent therefore acts alone; all others share this lock. Two calls in one transaction would have to turn the
    -- shared lock into the other, and could block each other there.
    IF action IN ('user_decline', 'user_delete', 'org_decline', 'org_delete', 'project_decline', 'project_delete',
                  'experiment_delete', 'experiment_give_up', 'facility_delete') THEN
        PERFORM pg_advisory_xact_lock(hashtext('activity.act'));
    ELSE
        PERFORM pg_advisory_xact_lock_shared(hashtext('activity.act'));
    END IF;

    CASE action
    -- Users
    WHEN 'user_register' THEN
        it := activity.new_name(seed, ARRAY['ling', 'wick', 'ford', 'by', 'er', 'son', 'ley']);
        PERFORM activity.act_as(seed, it);
        INSERT INTO portal.users (username, name, email, uid, gid, institution, category, country, usstate)
        VALUES (it, initcap(it), it || '@quillmark.example', 40000 + abs(seed % 1000000), 40000 + abs(seed % 1000000),
                (ARRAY['Quillmark University', 'Norrin State University', 'Tessaly Polytechnic'])[1 + activity.dice(seed, 'institution', 3)],
                (ARRAY['Graduate student', 'Undergraduate student', 'Faculty', 'Research Programmer'])[1 + activity.dice(seed, 'category', 4)],
                'United States', 'California')
        ON CONFLICT DO NOTHING;
        done := FOUND;
    WHEN 'user_init' THEN
        it := activity.pick_user(seed, 'NotSet');
        PERFORM activity.act_as(seed, it);
        UPDATE portal.users SET state = 'Pending', ver = ver + 1 WHERE username = it;
        done := FOUND;
    WHEN 'user_activate' THEN
        -- The portal gives each active user a project of the same name.
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_user(seed, 'NotSet', 'Pending');
        UPDATE portal.users SET state = 'Active', ver = ver + 1 WHERE username = it;
        done := FOUND;
        IF done THEN
            INSERT INTO portal.projects (name, description, gid, state, category)
            VALUES (it, 'Personal project of ' || it, 50000 + abs(seed % 1000000), 'Active', 'Personal')
            ON CONFLICT DO NOTHING;
            IF FOUND THEN
                INSERT INTO portal.project_members (project, username, role) VALUES (it, it, 'Creator');
            END IF;
        END IF;
    WHEN 'user_freeze' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_user(seed, 'NotSet', 'Pending', 'Active');
        UPDATE portal.users SET state = 'Frozen', ver = ver + 1 WHERE username = it AND NOT admin;
        done := FOUND;
    WHEN 'user_unfreeze' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_user(seed, 'Frozen');
        UPDATE portal.users SET state = 'Active', ver = ver + 1 WHERE username = it;
        done := FOUND;
    WHEN 'user_reset' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_user(seed, 'Frozen', 'Active');
        UPDATE portal.users SET state = CASE activity.dice(seed, 'to', 2) WHEN 0 THEN 'NotSet' ELSE 'Pending' END, ver = ver + 1
        WHERE username = it AND NOT admin;
        done := FOUND;
    WHEN 'user_update' THEN
        it := activity.pick_user(seed, 'NotSet', 'Pending', 'Frozen', 'Active');
        PERFORM activity.act_as(seed, it);
        UPDATE portal.users
        SET email = CASE activity.dice(seed, 'what', 3) WHEN 0 THEN it || activity.dice(seed, 'mail', 1000) || '@norrin.example' ELSE email END,
            institution = CASE activity.dice(seed, 'what', 3) WHEN 1 THEN 'Norrin State University' ELSE institution END,
            category = CASE activity.dice(seed, 'what', 3) WHEN 0 THEN category ELSE 'Research Programmer' END,
            ver = ver + 1
        WHERE username = it;
        done := FOUND;
    WHEN 'user_admin' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_user(seed, 'Active');
        -- The last operator stays one, and they never become more than a handful.
        UPDATE portal.users SET admin = NOT admin, ver = ver + 1
        FROM (SELECT count(*) AS operators FROM portal.users WHERE admin) AS all_of_them
        WHERE username = it AND CASE WHEN admin THEN operators > 1 ELSE operators < 6 END;
        done := FOUND;
    WHEN 'user_decline' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_user(seed, 'NotSet', 'Pending');
        DELETE FROM portal.users WHERE username = it;
        done := FOUND;
    WHEN 'user_delete' THEN
        -- The personal project goes with its user; memberships in organizations have no foreign key and go by hand.
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_user(seed, 'Frozen', 'Active');
        SELECT NOT admin INTO done FROM portal.users WHERE username = it;
        IF done THEN
            DELETE FROM portal.organization_members WHERE kind = 'UserMember' AND id = it;
            DELETE FROM portal.projects WHERE name = it;
            DELETE FROM portal.users WHERE username = it;
        END IF;

    -- Organizations
    WHEN 'org_create' THEN
        other := activity.pick_user(seed, 'Active');
        PERFORM activity.act_as(seed, other);
        it := activity.new_name(seed, ARRAY['lab', 'group', 'course', 'institute', 'works']);
        done := FALSE;
        IF other IS NOT NULL THEN
            INSERT INTO portal.organizations (name, description, oid, category, subcategory)
            VALUES (it, 'Founded by ' || other, 60000 + abs(seed % 1000000),
                    (ARRAY['Class', 'Research group', 'Company'])[1 + activity.dice(seed, 'category', 3)],
                    (ARRAY['Networking', 'Security', 'CPS', 'IoT'])[1 + activity.dice(seed, 'subcategory', 4)])
            ON CONFLICT DO NOTHING;
            done := FOUND;
        END IF;
        IF done THEN
            INSERT INTO portal.organization_members (organization, kind, id, role, state)
            VALUES (it, 'UserMember', other, 'Creator', 'Active');
        END IF;
    WHEN 'org_activate' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_org(seed, 'NotSet', 'Pending');
        UPDATE portal.organizations SET state = 'Active', ver = ver + 1 WHERE name = it;
        done := FOUND;
    WHEN 'org_freeze' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_org(seed, 'NotSet', 'Pending', 'Active');
        UPDATE portal.organizations SET state = 'Frozen', ver = ver + 1 WHERE name = it;
        done := FOUND;
    WHEN 'org_unfreeze' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_org(seed, 'Frozen');
        UPDATE portal.organizations SET state = 'Active', ver = ver + 1 WHERE name = it;
        done := FOUND;
    WHEN 'org_reset' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_org(seed, 'Frozen', 'Active');
        UPDATE portal.organizations SET state = CASE activity.dice(seed, 'to', 2) WHEN 0 THEN 'NotSet' ELSE 'Pending' END, ver = ver + 1
        WHERE name = it;
        done := FOUND;
    WHEN 'org_update' THEN
        it := activity.pick_org(seed, 'Pending', 'Frozen', 'Active');
        PERFORM activity.act_as_maintainer_of_org(seed, it);
        UPDATE portal.organizations
        SET description = 'As of revision ' || (ver + 1),
            access_mode = CASE activity.dice(seed, 'mode', 4) WHEN 0 THEN 'Protected' ELSE access_mode END,
            ver = ver + 1
        WHERE name = it;
        done := FOUND;
    WHEN 'org_decline' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_org(seed, 'NotSet', 'Pending');
        DELETE FROM portal.organizations WHERE name = it;
        done := FOUND;
    WHEN 'org_delete' THEN
        -- One statement of the portal; its members go with it, and its projects are left without an organization.
        it := activity.pick_org(seed, 'Frozen', 'Active');
        PERFORM activity.act_as_maintainer_of_org(seed, it);
        DELETE FROM portal.organizations WHERE name = it;
        done := FOUND;

    -- Members of organizations
    WHEN 'org_member_request' THEN
        -- Either side may ask. A project that joins is a member as well.
        it := activity.pick_org(seed, 'Active');
        IF activity.dice(seed, 'kind', 5) = 0 THEN
            other := activity.pick_project(seed, 'Active');
            PERFORM activity.act_as_maintainer_of_project(seed, other);
        ELSE
            other := activity.pick_user(seed, 'Pending', 'Active');
            PERFORM activity.act_as(seed, other);
        END IF;
        done := FALSE;
        IF it IS NOT NULL AND other IS NOT NULL THEN
            INSERT INTO portal.organization_members (organization, kind, id, role, state)
            VALUES (it, CASE activity.dice(seed, 'kind', 5) WHEN 0 THEN 'ProjectMember' ELSE 'UserMember' END, other, 'Member',
                    (ARRAY['MemberRequested', 'MemberRequested', 'EntityRequested', 'Pending'])[1 + activity.dice(seed, 'side', 4)])
            ON CONFLICT DO NOTHING;
            done := FOUND;
        END IF;
    WHEN 'org_member_confirm' THEN
        -- Confirming a membership also activates the account, if it was not active yet, and puts a project into its organization.
        org_member := activity.pick_org_member(seed, 'Pending', 'MemberRequested', 'EntityRequested');
        PERFORM activity.act_as_maintainer_of_org(seed, org_member.organization);
        UPDATE portal.organization_members SET state = 'Active'
        WHERE (organization, kind, id) = (org_member.organization, org_member.kind, org_member.id);
        done := FOUND;
        IF org_member.kind = 'UserMember' THEN
            UPDATE portal.users SET state = 'Active', ver = ver + 1
            WHERE username = (SELECT username FROM portal.users WHERE username = org_member.id AND state IN ('NotSet', 'Pending')
                              FOR NO KEY UPDATE SKIP LOCKED);
        ELSIF org_member.kind = 'ProjectMember' THEN
            UPDATE portal.projects SET organization = org_member.organization, ver = ver + 1
            WHERE name = (SELECT name FROM portal.projects WHERE name = org_member.id FOR NO KEY UPDATE SKIP LOCKED);
        END IF;
    WHEN 'org_member_role' THEN
        org_member := activity.pick_org_member(seed, 'Active', 'MemberRequested');
        PERFORM activity.act_as_maintainer_of_org(seed, org_member.organization);
        UPDATE portal.organization_members SET role = CASE role WHEN 'Member' THEN 'Maintainer' ELSE 'Member' END
        WHERE (organization, kind, id) = (org_member.organization, org_member.kind, org_member.id);
        done := FOUND;
    WHEN 'org_member_suspend' THEN
        org_member := activity.pick_org_member(seed, 'Active');
        PERFORM activity.act_as_maintainer_of_org(seed, org_member.organization);
        UPDATE portal.organization_members SET state = CASE activity.dice(seed, 'to', 2) WHEN 0 THEN 'Pending' ELSE 'EntityRequested' END
        WHERE (organization, kind, id) = (org_member.organization, org_member.kind, org_member.id);
        done := FOUND;
    WHEN 'org_member_remove' THEN
        org_member := activity.pick_org_member(seed, 'Pending', 'Active', 'MemberRequested', 'EntityRequested');
        PERFORM activity.act_as_maintainer_of_org(seed, org_member.organization);
        DELETE FROM portal.organization_members
        WHERE (organization, kind, id) = (org_member.organization, org_member.kind, org_member.id);
        done := FOUND;
    WHEN 'org_member_import' THEN
        -- A course is filled from a list: many rows of one statement. In the order of their names, as all imports, so that two
        -- of them that meet wait in line instead of for each other.
        it := activity.pick_org(seed, 'Active');
        PERFORM activity.act_as_maintainer_of_org(seed, it);
        INSERT INTO portal.organization_members (organization, kind, id, role, state)
        SELECT it, 'UserMember', u.username, 'Member', 'Active'
        FROM (SELECT username FROM portal.users WHERE state = 'Active'
              ORDER BY hashtextextended(username, seed) LIMIT 3 + activity.dice(seed, 'rows', 25)) AS u
        WHERE it IS NOT NULL
        ORDER BY u.username
        ON CONFLICT DO NOTHING;
        done := FOUND;

    -- Projects
    WHEN 'project_create' THEN
        other := activity.pick_user(seed, 'Active');
        PERFORM activity.act_as(seed, other);
        it := activity.new_name(seed, ARRAY['net', 'sim', 'bench', 'trace', 'twin', 'probe']);
        done := FALSE;
        IF other IS NOT NULL THEN
            INSERT INTO portal.projects (name, description, organization, gid, category, subcategory)
            VALUES (it, 'Started by ' || other,
                    CASE activity.dice(seed, 'alone', 3) WHEN 0 THEN NULL ELSE activity.pick_org(seed, 'Active') END,
                    70000 + abs(seed % 1000000),
                    (ARRAY['Research', 'Class', 'Testing'])[1 + activity.dice(seed, 'category', 3)],
                    (ARRAY['Networking', 'Security', 'CPS', 'IoT', 'Measurement'])[1 + activity.dice(seed, 'subcategory', 5)])
            ON CONFLICT DO NOTHING;
            done := FOUND;
        END IF;
        IF done THEN
            INSERT INTO portal.project_members (project, username, role) VALUES (it, other, 'Creator');
        END IF;
    WHEN 'project_activate' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_project(seed, 'NotSet', 'Pending');
        UPDATE portal.projects SET state = 'Active', ver = ver + 1 WHERE name = it;
        done := FOUND;
    WHEN 'project_freeze' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_project(seed, 'NotSet', 'Pending', 'Active');
        UPDATE portal.projects SET state = 'Frozen', ver = ver + 1 WHERE name = it;
        done := FOUND;
    WHEN 'project_unfreeze' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_project(seed, 'Frozen');
        UPDATE portal.projects SET state = 'Active', ver = ver + 1 WHERE name = it;
        done := FOUND;
    WHEN 'project_reset' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_project(seed, 'Frozen', 'Active');
        UPDATE portal.projects SET state = CASE activity.dice(seed, 'to', 2) WHEN 0 THEN 'NotSet' ELSE 'Pending' END, ver = ver + 1
        WHERE name = it;
        done := FOUND;
    WHEN 'project_update' THEN
        it := activity.pick_project(seed, 'Pending', 'Frozen', 'Active');
        PERFORM activity.act_as_maintainer_of_project(seed, it);
        UPDATE portal.projects
        SET description = CASE activity.dice(seed, 'what', 3) WHEN 0 THEN description ELSE 'As of revision ' || (ver + 1) END,
            organization = CASE activity.dice(seed, 'what', 3) WHEN 0 THEN activity.pick_org(seed, 'Active') ELSE organization END,
            ver = ver + 1
        WHERE name = it;
        done := FOUND;
    WHEN 'project_decline' THEN
        PERFORM activity.act_as_admin(seed);
        it := activity.pick_project(seed, 'NotSet', 'Pending');
        DELETE FROM portal.projects WHERE name = it;
        done := FOUND;
    WHEN 'project_delete' THEN
        -- Members and experiments go with it; a membership in an organization and the XDCs have no foreign key and go by hand.
        it := activity.pick_project(seed, 'Frozen', 'Active');
        PERFORM activity.act_as_maintainer_of_project(seed, it);
        DELETE FROM portal.organization_members WHERE kind = 'ProjectMember' AND id = it;
        DELETE FROM portal.xdcs WHERE project = it;
        DELETE FROM portal.projects WHERE name = it;
        done := FOUND;

    -- Members of projects
    WHEN 'project_member_add' THEN
        -- An upsert, as portals like to write it: adding a member who is there already brings the membership back to Active.
        it := activity.pick_project(seed, 'Active');
        other := activity.pick_user(seed, 'Active');
        PERFORM activity.act_as_maintainer_of_project(seed, it);
        done := FALSE;
        IF it IS NOT NULL AND other IS NOT NULL THEN
            INSERT INTO portal.project_members AS m (project, username, role, state)
            VALUES (it, other, CASE activity.dice(seed, 'role', 6) WHEN 0 THEN 'Maintainer' ELSE 'Member' END,
                    CASE activity.dice(seed, 'state', 8) WHEN 0 THEN 'Pending' ELSE 'Active' END)
            ON CONFLICT (project, username) DO UPDATE SET state = 'Active' WHERE m.state <> 'Active';
            done := FOUND;
        END IF;
    WHEN 'project_member_role' THEN
        project_member := activity.pick_project_member(seed, 'Active', 'Pending');
        PERFORM activity.act_as_maintainer_of_project(seed, project_member.project);
        UPDATE portal.project_members SET role = CASE role WHEN 'Member' THEN 'Maintainer' ELSE 'Member' END
        WHERE (project, username) = (project_member.project, project_member.username);
        done := FOUND;
    WHEN 'project_member_suspend' THEN
        project_member := activity.pick_project_member(seed, 'Active');
        PERFORM activity.act_as_maintainer_of_project(seed, project_member.project);
        UPDATE portal.project_members SET state = 'Pending'
        WHERE (project, username) = (project_member.project, project_member.username);
        done := FOUND;
    WHEN 'project_member_remove' THEN
        project_member := activity.pick_project_member(seed, 'Pending', 'Active');
        PERFORM activity.act_as_maintainer_of_project(seed, project_member.project);
        DELETE FROM portal.project_members WHERE (project, username) = (project_member.project, project_member.username);
        done := FOUND;
    WHEN 'project_member_import' THEN
        it := activity.pick_project(seed, 'Active');
        PERFORM activity.act_as_maintainer_of_project(seed, it);
        INSERT INTO portal.project_members (project, username)
        SELECT it, u.username
        FROM (SELECT username FROM portal.users WHERE state = 'Active'
              ORDER BY hashtextextended(username, seed) LIMIT 2 + activity.dice(seed, 'rows', 12)) AS u
        WHERE it IS NOT NULL
        ORDER BY u.username
        ON CONFLICT DO NOTHING;
        done := FOUND;

    -- Experiments
    WHEN 'experiment_create' THEN
        it := activity.pick_project(seed, 'Active');
        SELECT m.username INTO other FROM portal.project_members AS m
        WHERE m.project = it AND m.state = 'Active' ORDER BY hashtextextended(m.username, seed) LIMIT 1;
        PERFORM activity.act_as(seed, other);
        done := FALSE;
        IF other IS NOT NULL THEN
            INSERT INTO portal.experiments (project, name, description, creator)
            VALUES (it, activity.new_name(seed, ARRAY['run', 'mesh', 'star', 'load', 'loss']), 'Created by ' || other, other)
            ON CONFLICT DO NOTHING;
            done := FOUND;
        END IF;
    WHEN 'experiment_update' THEN
        experiment := activity.pick_experiment(seed);
        PERFORM activity.act_as(seed, experiment.creator);
        UPDATE portal.experiments
        SET description = 'As of revision ' || (ver + 1),
            repository = CASE activity.dice(seed, 'what', 3) WHEN 0 THEN 'https://git.portal.example/' || name || '/' || ver ELSE repository END,
            maintainers = CASE activity.dice(seed, 'what', 3) WHEN 1 THEN ARRAY[creator] ELSE maintainers END,
            ver = ver + 1
        WHERE (project, name) = (experiment.project, experiment.name);
        done := FOUND;
    WHEN 'experiment_delete' THEN
        experiment := activity.pick_experiment(seed);
        PERFORM activity.act_as(seed, experiment.creator);
        DELETE FROM portal.experiments WHERE (project, name) = (experiment.project, experiment.name);
        done := FOUND;
    WHEN 'experiment_savepoint' THEN
        -- Kept before the savepoint, undone in it, kept after it: only the first and the last may be seen.
        experiment := activity.pick_experiment(seed);
        PERFORM activity.act_as(seed, experiment.creator);
        UPDATE portal.experiments SET description = 'Before the savepoint of ' || seed, ver = ver + 1
        WHERE (project, name) = (experiment.project, experiment.name);
        done := FOUND;
        BEGIN
            UPDATE portal.experiments SET description = 'Never seen', creator = 'nobody'
            WHERE (project, name) = (experiment.project, experiment.name);
            INSERT INTO portal.experiments (project, name, creator)
            SELECT experiment.project, activity.new_name(seed, ARRAY['never']), 'nobody' WHERE experiment.project IS NOT NULL;
            RAISE EXCEPTION 'undone' USING ERRCODE = 'PA001';
        EXCEPTION WHEN SQLSTATE 'PA001' OR unique_violation OR foreign_key_violation THEN
            NULL;
        END;
        UPDATE portal.experiments SET access_mode = CASE access_mode WHEN 'Public' THEN 'Private' ELSE 'Public' END, ver = ver + 1
        WHERE (project, name) = (experiment.project, experiment.name);
    WHEN 'experiment_give_up' THEN
        -- Everything undone: the transaction commits and has changed nothing.
        experiment := activity.pick_experiment(seed);
        PERFORM activity.act_as(seed, experiment.creator);
        BEGIN
            DELETE FROM portal.experiments WHERE (project, name) = (experiment.project, experiment.name);
            RAISE EXCEPTION 'undone' USING ERRCODE = 'PA001';
        EXCEPTION WHEN SQLSTATE 'PA001' THEN
            NULL;
        END;
    WHEN 'write_nothing_new' THEN
        -- An object mapper that writes every column back, and one that only counts the write.
        it := activity.pick_user(seed, 'Active');
        PERFORM activity.act_as(seed, it);
        UPDATE portal.users SET name = name, email = email, state = state, ver = ver + activity.dice(seed, 'count', 2) WHERE username = it;
        done := FOUND;
    ELSE
        IF action ~ '^(model|reali[sz]|relinquish|resources|materiali|dematerialize)' THEN
            done := activity.act_on_experiment(seed, action);
        ELSE
            done := activity.act_on_things(seed, action);
        END IF;
    END CASE;

    RETURN action || CASE WHEN done THEN '' ELSE ' (nothing)' END;
END $$;
COMMENT ON FUNCTION activity.act(BIGINT) IS
    'Does one action of a person in the sample portal, decided by the seed, and returns its name. Safe for many callers at once.';
