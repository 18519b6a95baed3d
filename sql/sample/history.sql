-- Ninety days of life before the audit starts: what a snapshot or a backfill finds in the sample portal.
--
-- The same rows every time, dated back from the moment of loading. Where a value needs chance it takes a hash of the name, so
-- that no two runs differ. All people, places and projects are invented.
BEGIN;

-- hash(key, n): a number from 0 to n - 1 that depends on the key alone. In pg_temp, so that nothing of it stays.
CREATE FUNCTION pg_temp.hash(key TEXT, n BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE
AS $$ SELECT mod(mod(hashtextextended(key, 90), n) + n, n) $$;

-- An account is made on the day on which its turn comes: the first ninety days ago, the last yesterday.
INSERT INTO portal.users
    (username, name, email, state, access_mode, uid, gid, admin, institution, category, country, usstate, created, ver)
SELECT
    u.username,
    initcap(u.username),
    u.username || '@' || i.domain,
    CASE
        WHEN u.n IN (17, 41) THEN 'Frozen'
        WHEN u.n IN (55, 58, 60) THEN 'Pending'
        WHEN u.n = 59 THEN 'NotSet'
        ELSE 'Active'
    END,
    CASE WHEN pg_temp.hash('mode' || u.username, 4) = 0 THEN 'Protected' ELSE 'Public' END,
    10000 + u.n,
    10000 + u.n,
    u.n <= 2,
    i.institution,
    (ARRAY['Graduate student', 'Graduate student', 'Undergraduate student', 'Faculty', 'Research Programmer', 'Staff'])
        [1 + pg_temp.hash('category' || u.username, 6)],
    'United States',
    i.usstate,
    now() - (91 - u.n * 1.5) * INTERVAL '1 day' - pg_temp.hash('minute' || u.username, 600) * INTERVAL '1 minute',
    1 + pg_temp.hash('ver' || u.username, 5)
FROM unnest(ARRAY[
        'opsduty', 'opsnight', 'wrenn', 'okafor7', 'maple', 'tansy', 'corvin', 'delmar3', 'eskel', 'farrow',
        'gantry', 'hollis2', 'ibexa', 'juniper', 'kestrel', 'larkin5', 'marrow', 'nettle', 'osprey', 'pellam',
        'quarrel', 'rowan8', 'sable', 'tarn', 'umber', 'vetch', 'willet', 'xylo4', 'yarrow', 'zephyr',
        'alder', 'bracken', 'cinder', 'drumlin', 'ember6', 'fennel', 'gorse', 'harrier', 'indigo', 'jasper9',
        'knoll', 'linden', 'mallow', 'nimbus', 'onyx', 'plover', 'quill', 'rushes', 'sorrel', 'thistle',
        'ulmus', 'verdin', 'wicker', 'xenia', 'yonder', 'zircon', 'auburn', 'basalt', 'cobalt', 'dunlin'])
     WITH ORDINALITY AS u (username, n)
JOIN (VALUES
        (0, 'Quillmark University', 'quillmark.example', 'California'),
        (1, 'Norrin State University', 'norrin.example', 'Utah'),
        (2, 'Tessaly Polytechnic', 'tessaly.example', 'Massachusetts'),
        (3, 'Ardenfell National Laboratory', 'ardenfell.example', 'Colorado'),
        (4, 'Bramwick College', 'bramwick.example', 'Ohio')) AS i (n, institution, domain, usstate)
    ON i.n = pg_temp.hash('institution' || u.username, 5);

INSERT INTO portal.organizations (name, description, oid, state, access_mode, category, subcategory, created, ver)
SELECT name, description, 20000 + n, state, 'Public', category, subcategory, now() - age * INTERVAL '1 day', 1 + n % 3
FROM (VALUES
        (1, 'testbedops',  'Operators of the testbed',                        'Active',  'Operations',     'Staff',         89),
        (2, 'quillnet',    'Network measurement group',                       'Active',  'Research group', 'Networking',    84),
        (3, 'norrinsec',   'Security and privacy of embedded systems',        'Active',  'Research group', 'Security',      76),
        (4, 'tessalycps',  'Cyber-physical systems laboratory',               'Active',  'Research group', 'CPS',           63),
        (5, 'netsec101',   'Introduction to network security, spring course', 'Active',  'Class',          'Undergraduate', 58),
        (6, 'distsys520',  'Distributed systems, graduate course',            'Active',  'Class',          'Graduate',      40),
        (7, 'bramwickiot', 'Smart home study',                                'Frozen',  'Research group', 'IoT',           33),
        (8, 'arden5g',     'Radio access networks',                           'Pending', 'Research group', 'Wireless',      3)
     ) AS o (n, name, description, state, category, subcategory, age);

-- Twenty projects of groups and courses, and five personal ones: those bear the name of their user.
INSERT INTO portal.projects (name, description, organization, access_mode, gid, state, category, subcategory, created, ver)
SELECT name, description, organization, CASE WHEN n % 5 = 0 THEN 'Private' ELSE 'Public' END, 30000 + n, state,
       category, subcategory, now() - age * INTERVAL '1 day', 1 + n % 4
FROM (VALUES
        (1,  'healthcheck',  'Nightly checks of every facility',        'testbedops',  'Active',  'Operations', 'Monitoring',  88),
        (2,  'imagebuild',   'Standard operating system images',        'testbedops',  'Active',  'Operations', 'Images',      85),
        (3,  'latencymap',   'Latency between campus networks',         'quillnet',    'Active',  'Research',   'Networking',  83),
        (4,  'bgpreplay',    'Replay of recorded routing tables',       'quillnet',    'Active',  'Research',   'Networking',  80),
        (5,  'quicbench',    'Transport protocols under loss',          'quillnet',    'Active',  'Research',   'Networking',  71),
        (6,  'dnswatch',     'Resolvers and their caches',              'quillnet',    'Frozen',  'Research',   'Measurement', 66),
        (7,  'firmfuzz',     'Fuzzing of device firmware',              'norrinsec',   'Active',  'Research',   'Security',    74),
        (8,  'sidechannel',  'Timing of shared caches',                 'norrinsec',   'Active',  'Research',   'Security',    69),
        (9,  'botsim',       'Simulated bot networks',                  'norrinsec',   'Active',  'Research',   'Security',    51),
        (10, 'gridtwin',     'Twin of a regional power grid',           'tessalycps',  'Active',  'Research',   'CPS',         62),
        (11, 'waterplant',   'Controllers of a water treatment plant',  'tessalycps',  'Active',  'Research',   'CPS',         49),
        (12, 'rovernet',     'Coordination of field robots',            'tessalycps',  'Pending', 'Research',   'CPS',         2),
        (13, 'netsec101lab', 'Shared laboratory of the course',         'netsec101',   'Active',  'Class',      'Laboratory',  57),
        (14, 'netsec101g1',  'Course group 1',                          'netsec101',   'Active',  'Class',      'Group',       50),
        (15, 'netsec101g2',  'Course group 2',                          'netsec101',   'Active',  'Class',      'Group',       50),
        (16, 'netsec101g3',  'Course group 3',                          'netsec101',   'Active',  'Class',      'Group',       48),
        (17, 'raftlab',      'Consensus under partition',               'distsys520',  'Active',  'Class',      'Laboratory',  39),
        (18, 'gossip',       'Membership by gossip',                    'distsys520',  'Active',  'Class',      'Group',       35),
        (19, 'smartmeter',   'Traffic of household meters',             'bramwickiot', 'Frozen',  'Research',   'IoT',         32),
        (20, 'edgecache',    'Caches at the edge of the network',       NULL,          'Active',  'Research',   'Networking',  21),
        (21, 'wrenn',        'Personal project of wrenn',               NULL,          'Active',  'Personal',   '',            86),
        (22, 'okafor7',      'Personal project of okafor7',             NULL,          'Active',  'Personal',   '',            85),
        (23, 'maple',        'Personal project of maple',               NULL,          'Active',  'Personal',   '',            83),
        (24, 'corvin',       'Personal project of corvin',              NULL,          'Active',  'Personal',   '',            80),
        (25, 'kestrel',      'Personal project of kestrel',             NULL,          'Active',  'Personal',   '',            68)
     ) AS p (n, name, description, organization, state, category, subcategory, age);

-- Each user belongs to one organization or to two, the first of each organization as its creator. A few requests are open.
INSERT INTO portal.organization_members (organization, kind, id, role, state)
SELECT organization, 'UserMember', username,
       CASE row_number() OVER (PARTITION BY organization ORDER BY uid)
           WHEN 1 THEN 'Creator' WHEN 2 THEN 'Maintainer' ELSE 'Member'
       END,
       CASE
           WHEN state IN ('NotSet', 'Pending') THEN 'MemberRequested'
           WHEN row_number() OVER (PARTITION BY organization ORDER BY uid DESC) = 1 AND second THEN 'EntityRequested'
           ELSE 'Active'
       END
FROM (
    SELECT DISTINCT ON (o.name, u.username) o.name AS organization, u.username, u.uid, u.state, choice.salt = 'second' AS second
    FROM portal.users AS u
    CROSS JOIN (VALUES ('first'), ('second')) AS choice (salt)
    JOIN portal.organizations AS o ON o.oid = 20002 + pg_temp.hash(choice.salt || u.username, 7)
    WHERE choice.salt = 'first' OR pg_temp.hash('two' || u.username, 3) = 0
    ORDER BY o.name, u.username, choice.salt
) AS membership;

INSERT INTO portal.organization_members (organization, kind, id, role, state)
SELECT 'testbedops', 'UserMember', username, CASE username WHEN 'opsduty' THEN 'Creator' ELSE 'Maintainer' END, 'Active'
FROM portal.users WHERE admin;

-- A project of an organization is also its member.
INSERT INTO portal.organization_members (organization, kind, id, role, state)
SELECT organization, 'ProjectMember', name, 'Member', CASE state WHEN 'Pending' THEN 'MemberRequested' ELSE 'Active' END
FROM portal.projects WHERE organization IS NOT NULL;

-- A personal project has its user, any other a team of up to six, oldest account first.
INSERT INTO portal.project_members (project, username, role, state)
SELECT project, username,
       CASE row_number() OVER (PARTITION BY project ORDER BY uid)
           WHEN 1 THEN 'Creator' WHEN 2 THEN 'Maintainer' ELSE 'Member'
       END,
       'Active'
FROM (
    SELECT DISTINCT p.name AS project, u.username, u.uid
    FROM portal.projects AS p
    CROSS JOIN generate_series(1, 6) AS seat (n)
    JOIN portal.users AS u
        ON CASE p.category
               WHEN 'Personal' THEN u.username = p.name
               WHEN 'Operations' THEN u.admin
               ELSE u.uid = 10003 + pg_temp.hash(p.name || seat.n, 52)
           END
) AS team;

-- Eighty experiments over the projects that are active, each made by a member of its project and never before the project.
INSERT INTO portal.experiments (project, name, description, access_mode, repository, creator, maintainers, created, ver)
SELECT e.project, e.name, e.description, 'Public', 'https://git.portal.example/' || e.project || '/' || e.name,
       m.username, CASE WHEN pg_temp.hash('maintained' || e.n, 3) = 0 THEN ARRAY[m.username] ELSE '{}' END,
       e.project_created + (now() - e.project_created) * (0.02 + 0.009 * pg_temp.hash('age' || e.n, 100)),
       1 + pg_temp.hash('ver' || e.n, 6)
FROM (
    SELECT s.n, p.name AS project, p.created AS project_created,
           (ARRAY['baseline', 'twosite', 'lossy', 'scale', 'replay', 'smoke', 'mesh', 'star', 'fattree', 'failover'])
               [1 + mod(s.n * 7, 10)] || s.n AS name,
           (ARRAY['First run, defaults', 'Two facilities, one link', 'Packet loss of one percent', 'As many nodes as we get',
                  'Recorded traffic', 'Does it start at all', 'Full mesh', 'One hub', 'Three tiers', 'A node is taken away'])
               [1 + mod(s.n * 7, 10)] AS description
    FROM generate_series(1, 80) AS s (n)
    JOIN (SELECT *, row_number() OVER (ORDER BY gid) AS turn, count(*) OVER () AS turns
          FROM portal.projects WHERE state = 'Active') AS p
        ON p.turn = 1 + pg_temp.hash('project' || s.n, p.turns)
) AS e
CROSS JOIN LATERAL (
    SELECT username FROM portal.project_members
    WHERE project = e.project AND state = 'Active'
    ORDER BY pg_temp.hash(e.name || username, 1000000), username
    LIMIT 1
) AS m;

-- The machines that are used here are registered when the demo begins: registered_facilities.sql.
INSERT INTO portal.pools (name, description, creator, priority, projects, organizations)
VALUES ('courses', 'Machines for courses', 'opsduty', 10, ARRAY['netsec101lab', 'raftlab'], ARRAY['netsec101', 'distsys520']);

-- Every other experiment has a compiled model, every fifth of those is realized, and half of these are materialized.
INSERT INTO portal.experiment_models (project, experiment, revision, branch, model_file, in_progress, compiled, compile_time)
SELECT project, name, left(md5('revision' || name), 7), 'main',
       format(E'from mergexp import *\nnet = Network(%L)\nexperiment(net)\n', name), FALSE, TRUE, created
FROM portal.experiments WHERE pg_temp.hash('model' || name, 2) = 0;
INSERT INTO portal.realizations (pid, eid, id, revision, creator, created, expires, complete, code, links)
SELECT m.project, m.experiment, 'demo', m.revision, e.creator, now() - INTERVAL '1 day', now() + INTERVAL '6 days', TRUE, 'Ok',
       '{"lan0": {"link": "lan0", "segments": []}}'
FROM portal.experiment_models AS m JOIN portal.experiments AS e ON (e.project, e.name) = (m.project, m.experiment)
WHERE pg_temp.hash('realized' || m.experiment, 5) = 0;
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt)
SELECT r.pid, r.eid, r.id, 'quillmark', 'q' || 1 + pg_temp.hash(r.eid || n, 20), 'n' || n, n > 1
FROM portal.realizations AS r CROSS JOIN generate_series(1, 3) AS n;
INSERT INTO portal.materializations (pid, eid, rid, metal, links, highest_status)
SELECT r.pid, r.eid, r.id, jsonb_build_array(jsonb_build_object('facility', a.fid, 'resource', a.resource)), '[{"link": "lan0"}]', 'Success'
FROM portal.realizations AS r JOIN portal.allocations AS a ON (a.pid, a.eid, a.rid) = (r.pid, r.eid, r.id) AND NOT a.virt
WHERE pg_temp.hash('materialized' || r.eid, 2) = 0;

-- Keys, tokens, and machines to work from.
INSERT INTO portal.public_keys (username, fingerprint, key)
SELECT username, 'SHA256:' || left(md5(username), 12), 'ssh-ed25519 ' || md5('key' || username)
FROM portal.users WHERE state = 'Active' AND pg_temp.hash('key' || username, 2) = 0;
INSERT INTO portal.api_tokens (id, username, description, token_hash, created, expires)
SELECT md5('token' || username)::uuid, username, 'nightly job', md5('hash' || username), created, now() + INTERVAL '60 days'
FROM portal.users WHERE state = 'Active' AND pg_temp.hash('token' || username, 4) = 0;
INSERT INTO portal.xdcs (project, name, creator, image, materialization)
SELECT r.pid, 'desk' || pg_temp.hash(r.eid, 1000), r.creator, 'xdc-base',
       CASE WHEN EXISTS (SELECT FROM portal.materializations AS m WHERE (m.pid, m.eid, m.rid) = (r.pid, r.eid, r.id))
            THEN format('%s.%s.%s', r.id, r.eid, r.pid) END
FROM portal.realizations AS r;

DROP FUNCTION pg_temp.hash(TEXT, BIGINT);
COMMIT;
