-- What stands in `events` before workload F: ten million events of three years, as the portal of this benchmark makes them. Its indexes are the given ones, built at the end.
DROP INDEX idx_events_timestamp, idx_events_event_type, idx_events_caller, idx_events_subject, idx_events_target;
ALTER TABLE events DROP CONSTRAINT events_pkey;
INSERT INTO events
  SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '8' || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid,
         at, types[1 + n % 20], CASE WHEN n % 5 = 0 THEN '' ELSE 'user-' || lpad((n * 7 % 2000)::text, 4, '0') END,
         CASE n % 3 WHEN 0 THEN 'project-' || lpad((n * 11 % 1000)::text, 4, '0') WHEN 1 THEN 'experiment-' || n * 13 % 5000 ELSE 'user-' || lpad((n * 17 % 2000)::text, 4, '0') END,
         (ARRAY['project', 'experiment', 'user'])[1 + n % 3],
         CASE WHEN n % 2 = 0 THEN 'user-' || lpad((n * 19 % 2000)::text, 4, '0') END,
         n % 33 <> 0, CASE WHEN n % 33 = 0 THEN 'no facility has the resources that were asked for' END,
         jsonb_build_object('kind', (ARRAY['usermember', 'projectmember'])[1 + n % 2], 'role', 'member', 'state', 'active',
           '_audit', jsonb_build_object('n', 1, 'lsn', '0/' || to_hex(n), 'xid', n, 'source', 'portal', 'caller_from', 'context'))
    FROM (SELECT n, now() - interval '9.5 seconds' * (10000000 - n) AS at, md5(n::text) AS hash FROM generate_series(1, 10000000) n) g,
         (SELECT ARRAY['org_member_added', 'org_member_deleted', 'project_member_added', 'project_member_deleted', 'experiment_created', 'experiment_deleted', 'experiment_model_pushed', 'experiment_model_compiled', 'realization_created', 'realization_failed', 'materialization_started', 'materialization_completed', 'dematerialized', 'resources_allocated', 'login_succeeded', 'login_failed', 'logout', 'user_updated', 'project_updated', 'experiment_updated'] AS types) t;
ALTER TABLE events ADD CONSTRAINT events_pkey PRIMARY KEY (event_uuid);
CREATE INDEX idx_events_timestamp  ON events (timestamp DESC);
CREATE INDEX idx_events_event_type ON events (event_type);
CREATE INDEX idx_events_caller     ON events (caller);
CREATE INDEX idx_events_subject    ON events (subject_type, subject);
CREATE INDEX idx_events_target     ON events (target);
