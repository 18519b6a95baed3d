-- What it was attached to is remembered.
INSERT INTO portal.xdcs (project, name, creator, materialization) VALUES ('mesh', 'desk', 'sedge', NULL), ('mesh', 'bench', 'sedge', 'one.mesh8.mesh');
-- when
BEGIN;
UPDATE portal.xdcs SET materialization = NULL;
COMMIT;
BEGIN;
UPDATE portal.xdcs SET materialization = 'two.mesh8.mesh' WHERE name = 'desk';
UPDATE portal.xdcs SET materialization = NULL WHERE name = 'desk';
COMMIT;
