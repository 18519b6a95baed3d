-- Organizations: a creation whose name is taken, an activation and a deletion that are taken back.
INSERT INTO portal.organizations (name, oid) VALUES ('atoms', 1);
-- when
INSERT INTO portal.organizations (name, oid, category) VALUES ('atoms', 2, 'Class');
BEGIN; UPDATE portal.organizations SET state = 'Active'; ROLLBACK;
BEGIN; DELETE FROM portal.organizations; ROLLBACK;
