-- Eight hundred events without sense, by a seed: few names and few times, so that everything meets everything. $1: the seed.
INSERT INTO public.events (event_uuid, timestamp, event_type, caller, subject, subject_type, target, success, error_message, payload)
SELECT md5('id' || i || $1)::uuid, at, event_type, caller, subject, subject_type, target, success, CASE WHEN NOT success THEN 'no' END,
       CASE WHEN hs[6] % 40 = 0 THEN '["not", "an", "object", "category"]'
            ELSE jsonb_strip_nulls(jsonb_build_object(
                   'project', CASE WHEN subject_type IN ('experiment', 'realization', 'materialization') AND hs[7] % 9 > 0 THEN 'p' || hs[7] % 2 END,
                   'experiment', CASE WHEN subject_type IN ('realization', 'materialization') THEN 'e' || hs[8] % 2 END,
                   'old_name', CASE WHEN event_type LIKE '%renamed' AND hs[9] % 5 > 0 THEN 'n' || hs[9] % 3 END,
                   'old_project', CASE WHEN event_type = 'experiment_renamed' AND hs[10] % 3 = 0 THEN 'p' || hs[10] % 2 END,
                   'kind', CASE WHEN event_type LIKE '%member%' THEN (ARRAY['UserMember', 'ProjectMember', 'usermember'])[1 + hs[11] % 3] END,
                   'role', CASE WHEN event_type LIKE '%member%' AND hs[12] % 3 > 0 THEN (ARRAY['Member', 'maintainer'])[1 + hs[12] % 2] END,
                   'state', CASE WHEN hs[13] % 2 = 0 THEN (ARRAY['active', 'Pending', 'frozen'])[1 + hs[13] % 3] END,
                   'action', CASE WHEN subject_type IN ('realization', 'materialization') AND hs[14] % 9 > 0
                                  THEN CASE WHEN event_type IN ('realization_relinquished', 'realization_expired', 'resources_deallocated', 'dematerialized') THEN 'deallocate' ELSE 'allocate' END END,
                   'resources', CASE WHEN subject_type IN ('realization', 'materialization', 'facility') AND hs[15] % 9 > 0
                                     THEN (SELECT coalesce(jsonb_agg('m' || (hashtext(i || 'r' || k || $1) & 2147483647) % 6), '[]') FROM generate_series(1, hs[15] % 4) AS k) END,
                   'inactive', CASE WHEN event_type = 'facility_resources_added' AND hs[16] % 3 = 0 THEN '["m4", "m5"]'::jsonb END,
                   'facilities', CASE WHEN event_type IN ('realization_created', 'resources_allocated') AND hs[17] % 4 > 0
                                      THEN (SELECT jsonb_agg('f' || (hs[17] + k) % 3) FROM generate_series(1, 1 + hs[18] % 2) AS k) END))
              || CASE hs[19] % 6 WHEN 0 THEN '{"category": null}' WHEN 1 THEN '{"category": "C", "subcategory": ["D"], "organization": "o"}' ELSE '{}' END::jsonb
              || CASE hs[20] % 5 WHEN 0 THEN '{}' WHEN 1 THEN '{"_audit": {"source": ".own"}}' WHEN 2 THEN '{"_audit": {"lsn": "none", "n": -1}}'
                      ELSE jsonb_build_object('_audit', jsonb_strip_nulls(jsonb_build_object('lsn', '0/' || hs[21] % 3, 'n', hs[22] % 3, 'backfill', CASE WHEN hs[23] % 4 = 0 THEN true END))) END END
  FROM generate_series(1, 800) AS i
 CROSS JOIN LATERAL (SELECT ARRAY(SELECT hashtext(i || 'h' || k || $1) & 2147483647 FROM generate_series(1, 23) AS k) AS hs) AS hashes
 CROSS JOIN LATERAL (SELECT (string_to_array(kinds.list[1 + hs[1] % cardinality(kinds.list)], ' '))[1] AS event_type,
                            (string_to_array(kinds.list[1 + hs[1] % cardinality(kinds.list)], ' '))[2] AS subject_type
                       FROM (SELECT ARRAY[
                         'user_created user', 'user_activated user', 'user_frozen user', 'user_unfrozen user', 'user_updated user', 'user_renamed user', 'user_deleted user', 'user_declined user',
                         'login_succeeded user', 'login_failed user', 'token_created user', 'org_created organization', 'org_deleted organization', 'org_member_added organization',
                         'org_member_deleted organization', 'org_member_requested organization', 'project_created project', 'project_renamed project', 'project_deleted project',
                         'project_member_added project', 'project_member_updated project', 'project_member_state_changed project', 'project_member_deleted project', 'project_member_added user',
                         'experiment_created experiment', 'experiment_updated experiment', 'experiment_renamed experiment', 'experiment_deleted experiment', 'gadget_registered gadget',
                         'realization_created realization', 'realization_created realization', 'resources_allocated realization', 'resources_deallocated realization', 'realization_relinquished realization', 'realization_expired realization',
                         'materialization_started materialization', 'materialization_completed materialization', 'materialization_completed materialization', 'dematerialized materialization',
                         'facility_registered facility', 'facility_updated facility', 'facility_resources_added facility', 'facility_resources_activated facility', 'facility_resources_deactivated facility',
                         'facility_resources_removed facility', 'facility_member_deleted facility', 'facility_deleted facility'] AS list) AS kinds) AS kind
 CROSS JOIN LATERAL (SELECT timestamptz '2026-01-01 00:00Z' + hs[2] % 30 * interval '7 hours' AS at,
                            CASE hs[3] % 3 WHEN 0 THEN '' ELSE 'n' || hs[3] % 4 END AS caller,
                            CASE WHEN subject_type IN ('realization', 'materialization') THEN 'r' || hs[4] % 12 WHEN subject_type = 'facility' THEN 'f' || hs[4] % 3
                                 WHEN hs[4] % 50 = 0 THEN repeat('long', 300) ELSE 'n' || hs[4] % 3 END AS subject,
                            CASE WHEN event_type LIKE '%member%' AND hs[5] % 20 > 0 THEN 'n' || hs[5] % 4 END AS target,
                            hs[5] % 7 > 0 AND event_type <> 'login_failed' AND (event_type <> 'facility_deleted' OR hs[5] % 5 = 0) AS success) AS facts;
