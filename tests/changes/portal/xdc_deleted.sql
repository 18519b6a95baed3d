-- Attached or not.
INSERT INTO portal.xdcs (project, name, creator, materialization) VALUES ('mesh', 'desk', 'sedge', NULL), ('mesh', 'bench', 'sedge', 'one.mesh8.mesh');
-- when
BEGIN;
DELETE FROM portal.xdcs WHERE name = 'bench';
COMMIT;
BEGIN;
DELETE FROM portal.xdcs;
COMMIT;
