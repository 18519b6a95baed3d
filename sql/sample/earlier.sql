-- What stands in `events` before the sidecar comes: rows that another program wrote over ninety days, logins, failures and an outage among
-- them. The sidecar takes them as they are and seals them; nothing says how they are known.
--
-- The same rows every time, dated back from the moment of loading; what needs chance takes a hash. People and projects are those of
-- history.sql, and whatever begins here ends here too, so that the numbers of today are the portal's own.
BEGIN;

CREATE FUNCTION pg_temp.hash(key TEXT, n BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE
AS $$ SELECT mod(mod(hashtextextended(key, 90), n) + n, n) $$;

-- The sentences of what no mapping of the sample portal declares.
INSERT INTO portal_audit.event_types (event_type, describe, retention, visible_to) VALUES
    ('login_succeeded', '{subject} logged in by {payload.method} from {payload.ip}', 'user', ARRAY['admin', 'self']),
    ('login_failed', 'a login as {subject} failed: {error_message}', 'user', ARRAY['admin', 'self'])
ON CONFLICT DO NOTHING;

-- A part of a day's people come, fewer at the weekend; their accounts are as old as history.sql makes them. One password in nine is wrong.
INSERT INTO public.events (event_uuid, timestamp, event_type, caller, subject, subject_type, success, error_message, payload)
SELECT gen_random_uuid(), at, CASE WHEN fails THEN 'login_failed' ELSE 'login_succeeded' END, CASE WHEN fails THEN '' ELSE username END,
       username, 'user', NOT fails, CASE WHEN fails THEN 'username or password is wrong' END,
       jsonb_build_object('aal', 'aal1', 'type', 'browser', 'method', CASE pg_temp.hash('method' || username, 4) WHEN 0 THEN 'oidc' ELSE 'password' END)
       || CASE WHEN fails THEN '{"reason": 4000006}' ELSE jsonb_build_object('ip', '192.0.2.' || 10 + n) END
FROM (
    SELECT u.username, u.n, s.at, pg_temp.hash('fails' || d || u.username, 9) = 0 AS fails
    FROM unnest(ARRAY['opsduty', 'opsnight', 'wrenn', 'okafor7', 'maple', 'tansy', 'corvin', 'delmar3', 'eskel', 'farrow', 'gantry',
        'hollis2', 'ibexa', 'juniper', 'kestrel', 'larkin5', 'marrow', 'nettle', 'osprey', 'pellam', 'rowan8', 'sable', 'tarn', 'umber',
        'vetch', 'willet', 'xylo4', 'yarrow', 'zephyr', 'alder']) WITH ORDINALITY AS u (username, n)
    CROSS JOIN generate_series(0, 89) AS d
    CROSS JOIN LATERAL (SELECT now() - d * INTERVAL '1 day' - (10 + pg_temp.hash('minute' || d || u.username, 500)) * INTERVAL '1 minute' AS at) AS s
    WHERE d < 88 - u.n * 1.5
      AND pg_temp.hash('comes' || d || u.username, 100) < CASE WHEN extract(isodow FROM s.at) > 5 THEN 12 ELSE 38 END
) AS came;

-- Realizations that nothing could carry, and tasks of materializations that failed; each of the other runs lasts some hours.
CREATE TEMPORARY TABLE runs ON COMMIT DROP AS
SELECT r.n, p.project, p.caller, p.experiment, 'run' || r.n AS run, now() - p.age * INTERVAL '1 day' * (r.n - 0.5) / 120 - INTERVAL '6 hours' AS at,
       pg_temp.hash('outcome' || r.n, 7) AS outcome, (ARRAY['quillmark', 'norrin', 'tessaly'])[1 + pg_temp.hash('where' || r.n, 3)] AS facility
FROM generate_series(1, 120) AS r (n)
JOIN (VALUES (0, 'latencymap', 'maple', 'pathprobe', 80), (1, 'bgpreplay', 'corvin', 'tablereplay', 76), (2, 'firmfuzz', 'tansy', 'bootloader', 70),
             (3, 'gridtwin', 'eskel', 'substation', 58), (4, 'raftlab', 'delmar3', 'threenodes', 36)) AS p (n, project, caller, experiment, age)
    ON p.n = r.n % 5;

INSERT INTO public.events (event_uuid, timestamp, event_type, caller, subject, subject_type, success, error_message, payload)
SELECT gen_random_uuid(), at + step.after * INTERVAL '1 minute', step.event_type, caller, format('%s.%s.%s', run, experiment, project), step.subject_type,
       step.error_message IS NULL, step.error_message,
       jsonb_build_object('project', project, 'experiment', experiment, 'realization', run, 'facilities', jsonb_build_array(facility))
FROM runs
CROSS JOIN LATERAL (VALUES
    (0, 0, 6, 'realization_requested', 'realization', NULL),
    (1, 0, 1, 'realization_created', 'realization', 'no resource for node n' || 1 + n % 5),
    (1, 2, 6, 'realization_created', 'realization', NULL),
    (3, 2, 6, 'materialization_started', 'materialization', NULL),
    (9, 2, 2, 'materialization_completed', 'materialization', 'node n' || 1 + n % 4 || ' did not answer after its reboot'),
    (9, 3, 6, 'materialization_completed', 'materialization', NULL),
    (240 + n, 2, 6, 'dematerialized', 'materialization', NULL),
    (241 + n, 2, 6, 'realization_relinquished', 'realization', NULL)
) AS step (after, least_outcome, most_outcome, event_type, subject_type, error_message)
WHERE outcome BETWEEN step.least_outcome AND step.most_outcome;

-- Three hours of which nothing is known: the other program was away, and its slot was gone when it came back.
INSERT INTO portal_audit.event_types (event_type, describe, retention, visible_to)
VALUES ('audit_gap', 'changes of source {subject} from {payload.from_time} to {payload.to_time} are missing: {payload.reason}', 'project', ARRAY['admin'])
ON CONFLICT DO NOTHING;
CREATE TEMPORARY TABLE gap ON COMMIT DROP AS
SELECT gen_random_uuid() AS event_uuid, now() - INTERVAL '47 days 3 hours' AS from_time, now() - INTERVAL '47 days' AS to_time;
DELETE FROM public.events USING gap WHERE timestamp BETWEEN from_time AND to_time;
INSERT INTO public.events (event_uuid, timestamp, event_type, caller, subject, subject_type, success, payload)
SELECT event_uuid, to_time, 'audit_gap', '', 'earlier', 'source', TRUE,
       jsonb_build_object('reason', 'slot_lost', 'from_time', from_time AT TIME ZONE 'UTC', 'to_time', to_time AT TIME ZONE 'UTC') FROM gap;
INSERT INTO portal_audit.gaps
    (source, reason, slot, system_identifier, timeline, database_oid, from_lsn, from_time, last_commit, accepted_at, to_lsn, to_time, event_uuid)
SELECT 'earlier', 'slot_lost', 'earlier', '0', 1, 0, '0/1', from_time, from_time, to_time, '0/2', to_time, event_uuid FROM gap;

SELECT portal_audit.adopt();
DROP FUNCTION pg_temp.hash(TEXT, BIGINT);
COMMIT;
