-- What the benchmark fills the sample portal with, and the transactions that it runs there.
--
-- Everything is counted, nothing is random: transaction number n does the same on every machine. Each kind of change keeps to rows
-- that no other one takes away, so that transactions may run side by side.
CREATE SCHEMA bench;

CREATE FUNCTION bench.project(n BIGINT) RETURNS TEXT IMMUTABLE LANGUAGE sql AS $$ SELECT 'project-' || lpad((n % 1000)::text, 4, '0') $$;
CREATE FUNCTION bench.username(n BIGINT) RETURNS TEXT IMMUTABLE LANGUAGE sql AS $$ SELECT 'user-' || lpad((n % 2000)::text, 4, '0') $$;

INSERT INTO portal.organizations (name, oid, state) SELECT 'organization-' || n, n, 'Active' FROM generate_series(0, 49) n;
INSERT INTO portal.users (username, name, state, uid, gid) SELECT bench.username(n), 'User ' || n, 'Active', n, n FROM generate_series(0, 1999) n;
INSERT INTO portal.projects (name, organization, gid, state)
  SELECT bench.project(n), 'organization-' || n % 50, n, 'Active' FROM generate_series(0, 999) n;
-- 300 members each: those of project p begin at user p.
INSERT INTO portal.project_members (project, username) SELECT bench.project(p), bench.username(p + k) FROM generate_series(0, 999) p, generate_series(0, 299) k;
INSERT INTO portal.experiments (project, name, creator) SELECT bench.project(n), 'experiment-' || n, bench.username(n) FROM generate_series(0, 4999) n;
-- More than materializations, which come and go.
INSERT INTO portal.realizations (pid, eid, id, revision, creator, complete, code)
  SELECT bench.project(n % 5000), 'experiment-' || n % 5000, 'realization-' || n, md5(n::text), bench.username(n), true, 'Ok'
    FROM generate_series(0, 65000) n;

-- What a materialization with n nodes holds: half machines, half virtual ones, and a link for each.
CREATE TABLE bench.documents (n INTEGER PRIMARY KEY, metal JSONB, vms JSONB, links JSONB);
INSERT INTO bench.documents
  SELECT n,
         (SELECT jsonb_agg(jsonb_build_object('resource', 'x' || i, 'facility', 'lab', 'image', 'debian-13')) FROM generate_series(1, n / 2) i),
         (SELECT jsonb_agg(jsonb_build_object('vm_alloc', jsonb_build_object('node', 'n' || i, 'resource', 'x' || i % 7))) FROM generate_series(1, n - n / 2) i),
         (SELECT jsonb_agg(jsonb_build_object('link', 'l' || i)) FROM generate_series(1, n) i)
    FROM generate_series(10, 200) n;
INSERT INTO portal.materializations (pid, eid, rid, metal, vms, links)
  SELECT r.pid, r.eid, r.id, d.metal, d.vms, d.links
    FROM generate_series(64001, 65000) m JOIN portal.realizations r ON r.id = 'realization-' || m JOIN bench.documents d ON d.n = 10 + m % 91;

-- Workload A and D: one small change, as a portal makes them all the time.
CREATE FUNCTION bench.small(n BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
  -- Each project in turn; its members in a window that moves on by one with each round.
  p BIGINT := n / 3 % 1000;
  k BIGINT := n / 3000;
BEGIN
  CASE n % 3
    WHEN 0 THEN INSERT INTO portal.project_members (project, username) VALUES (bench.project(p), bench.username(p + k + 300)) ON CONFLICT DO NOTHING;
    WHEN 1 THEN UPDATE portal.project_members SET role = CASE role WHEN 'Member' THEN 'Maintainer' ELSE 'Member' END
                 WHERE project = bench.project(p) AND username = bench.username(p + k + 150);
    ELSE DELETE FROM portal.project_members WHERE project = bench.project(p) AND username = bench.username(p + k);
  END CASE;
END $$;

-- Workload B: two changes. Those of a membership keep to the first 500 projects.
CREATE FUNCTION bench.pair(n BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
  turn BIGINT := n / 4;
  p BIGINT := turn % 500;
  k BIGINT := turn / 500;
BEGIN
  CASE n % 4
    WHEN 0 THEN
      DELETE FROM portal.project_members WHERE project = bench.project(p) AND username = bench.username(p + k);
      INSERT INTO portal.project_members (project, username) VALUES (bench.project(p), bench.username(p + k + 300));
    WHEN 1 THEN
      IF k / 1700 % 2 = 0 THEN
        INSERT INTO portal.project_members (project, username) VALUES (bench.project(500 + p), bench.username(500 + p + 300 + k % 1700));
      ELSE
        DELETE FROM portal.project_members WHERE project = bench.project(500 + p) AND username = bench.username(500 + p + 300 + k % 1700);
      END IF;
      UPDATE portal.projects SET description = 'description ' || n, ver = ver + 1 WHERE name = bench.project(500 + p);
    WHEN 2 THEN
      PERFORM bench.materialize(turn, (10 + turn % 91)::INTEGER);
      UPDATE portal.experiments SET description = 'description ' || n, ver = ver + 1
       WHERE project = bench.project(turn % 5000) AND name = 'experiment-' || turn % 5000;
    ELSE
      UPDATE portal.project_members SET role = CASE role WHEN 'Member' THEN 'Maintainer' ELSE 'Member' END
       WHERE project = bench.project(p) AND username = bench.username(p + k + 150);
      UPDATE portal.experiments SET description = 'description ' || n, ver = ver + 1
       WHERE project = bench.project(turn % 5000) AND name = 'experiment-' || turn % 5000;
  END CASE;
END $$;

-- Each realization in turn is materialized; a round later it is taken down.
CREATE FUNCTION bench.materialize(turn BIGINT, nodes INTEGER) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
  r BIGINT := turn % 64000;
BEGIN
  IF turn / 64000 % 2 = 0 THEN
    INSERT INTO portal.materializations (pid, eid, rid, metal, vms, links)
      SELECT bench.project(r % 5000), 'experiment-' || r % 5000, 'realization-' || r, metal, vms, links FROM bench.documents d WHERE d.n = nodes;
  ELSE
    DELETE FROM portal.materializations WHERE pid = bench.project(r % 5000) AND eid = 'experiment-' || r % 5000 AND rid = 'realization-' || r;
  END IF;
END $$;

-- Workload E: a model file of 2 to 20 kB, or the lists of a large materialization.
CREATE FUNCTION bench.wide(n BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
  turn BIGINT := n / 2;
BEGIN
  IF n % 2 = 0 THEN
    INSERT INTO portal.experiment_models (project, experiment, revision, model_file)
      VALUES (bench.project(turn % 5000), 'experiment-' || turn % 5000, 'revision-' || n, repeat(md5(n::text) || E'\n', (60 + n % 540)::INTEGER));
  ELSE
    PERFORM bench.materialize(turn, (60 + turn % 140)::INTEGER);
  END IF;
END $$;

-- So many transactions, each committed by itself.
CREATE PROCEDURE bench.run(what TEXT, transactions BIGINT) LANGUAGE plpgsql AS $$
BEGIN
  FOR n IN 0 .. transactions - 1 LOOP
    IF what = 'pair' THEN PERFORM bench.pair(n); ELSE PERFORM bench.wide(n); END IF;
    COMMIT;
  END LOOP;
END $$;

-- Workload C: one transaction of so many changes. A round has up to 500,000; every second one takes back what the one before it did.
CREATE PROCEDURE bench.one(changes BIGINT) LANGUAGE plpgsql AS $$
DECLARE
  part BIGINT;
  round BIGINT := 0;
BEGIN
  WHILE changes > 0 LOOP
    part := least(changes, 500000) / 5;
    UPDATE portal.project_members m SET role = CASE round % 2 WHEN 0 THEN 'Maintainer' ELSE 'Member' END
      FROM (SELECT bench.project(n % 1000) AS project, bench.username(n % 1000 + n / 1000) AS username FROM generate_series(0, part * 2 - 1) n) w
     WHERE (m.project, m.username) = (w.project, w.username);
    IF round % 2 = 0 THEN
      INSERT INTO portal.project_members (project, username)
        SELECT bench.project(n % 1000), bench.username(n % 1000 + 300 + n / 1000) FROM generate_series(0, part * 2 - 1) n;
      DELETE FROM portal.project_members m
       USING (SELECT bench.project(n % 1000) AS project, bench.username(n % 1000 + 299 - n / 1000) AS username FROM generate_series(0, part - 1) n) w
       WHERE (m.project, m.username) = (w.project, w.username);
    ELSE
      DELETE FROM portal.project_members m
       USING (SELECT bench.project(n % 1000) AS project, bench.username(n % 1000 + 300 + n / 1000) AS username FROM generate_series(0, part * 2 - 1) n) w
       WHERE (m.project, m.username) = (w.project, w.username);
      INSERT INTO portal.project_members (project, username)
        SELECT bench.project(n % 1000), bench.username(n % 1000 + 299 - n / 1000) FROM generate_series(0, part - 1) n;
    END IF;
    changes := changes - part * 5;
    EXIT WHEN part = 0;
    round := round + 1;
  END LOOP;
END $$;
