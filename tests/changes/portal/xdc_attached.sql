-- To a first materialization, and from one to another. Its limits are no event.
INSERT INTO portal.xdcs (project, name, creator, materialization) VALUES ('mesh', 'desk', 'sedge', NULL), ('mesh', 'bench', 'sedge', 'one.mesh8.mesh');
-- when
BEGIN;
UPDATE portal.xdcs SET materialization = 'one.mesh8.mesh' WHERE name = 'desk';
COMMIT;
BEGIN;
UPDATE portal.xdcs SET materialization = 'two.mesh8.mesh';
COMMIT;
BEGIN;
UPDATE portal.xdcs SET materialization = 'two.mesh8.mesh', mem_limit = 8, image = 'xdc-base:2';
COMMIT;
