-- Prefixed labels, deletion by a mark, restoring, clean-up, and a rename that does not rewrite the past.
INSERT INTO people.account (id, login, state) VALUES ('00000000-0000-0000-0000-000000000001', 'opsdesk', 'ACCOUNT_STATE_ACTIVE'), ('00000000-0000-0000-0000-000000000002', 'sedge', 'ACCOUNT_STATE_PENDING');
INSERT INTO people.account (id, login, deleted_at) VALUES ('00000000-0000-0000-0000-000000000009', 'longgone', '2026-01-01');
-- when
BEGIN; INSERT INTO people.account (id, login) VALUES ('00000000-0000-0000-0000-000000000003', 'fennel'); COMMIT;
BEGIN; UPDATE people.account SET state = 'ACCOUNT_STATE_ACTIVE', updated_by = '00000000-0000-0000-0000-000000000001' WHERE login = 'sedge'; COMMIT;
BEGIN; UPDATE people.account SET login = 'ops', updated_by = id WHERE login = 'opsdesk'; COMMIT;
BEGIN; UPDATE people.account SET state = 'ACCOUNT_STATE_FROZEN', updated_by = '00000000-0000-0000-0000-000000000001' WHERE login = 'sedge'; COMMIT;
BEGIN; UPDATE people.account SET deleted_at = now(), updated_by = '00000000-0000-0000-0000-000000000001' WHERE login = 'sedge'; COMMIT;
BEGIN; UPDATE people.account SET deleted_at = NULL, updated_by = NULL WHERE login = 'sedge'; COMMIT;
BEGIN; UPDATE people.account SET deleted_at = now(), updated_by = id WHERE login = 'sedge'; COMMIT;
BEGIN; DELETE FROM people.account WHERE deleted_at IS NOT NULL; COMMIT;
BEGIN; DELETE FROM people.account WHERE login = 'fennel'; COMMIT;
