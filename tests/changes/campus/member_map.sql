-- Members in a JSON map, old against new: added, requested, confirmed, changed, removed, written back in another order, and gone with the organization.
INSERT INTO people.account (id, login) VALUES ('00000000-0000-0000-0000-000000000001', 'glawler');
INSERT INTO lab.organization (title, category, about, state, members, labels) VALUES ('orgtest', 'Research group', 'Trying out', 3, '{"old": {"role": "Member", "state": "Active"}}', '{one,"t w o"}');
-- when
BEGIN; UPDATE lab.organization SET updated_by = '00000000-0000-0000-0000-000000000001', members = members || '{"testuser": {"role": "Member", "state": "Active"}, "sedge": {"role": "Member", "state": "MemberRequested"}}'; COMMIT;
BEGIN; UPDATE lab.organization SET updated_by = NULL, members = jsonb_set(members, '{sedge,state}', '"Active"'); COMMIT;
BEGIN; UPDATE lab.organization SET updated_by = NULL, members = jsonb_set(members, '{sedge,role}', '"Maintainer"'); COMMIT;
BEGIN; UPDATE lab.organization SET updated_by = NULL, members = '{"testuser": {"state": "Active", "role": "Member"}, "sedge": {"state": "Active", "role": "Maintainer"}, "old": {"state": "Active", "role": "Member"}}', about = 'The same members'; COMMIT;
BEGIN; UPDATE lab.organization SET updated_by = NULL, members = members - 'testuser', labels = '{"t w o",three}'; COMMIT;
BEGIN; INSERT INTO lab.organization (title, members) VALUES ('second', '{"glawler": {"role": "Creator", "state": "Active"}}'); COMMIT;
BEGIN; DELETE FROM lab.organization WHERE title = 'orgtest'; COMMIT;
