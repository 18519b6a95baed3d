-- A shared one, and a personal one that is attached from the first.
-- when
BEGIN;
INSERT INTO portal.xdcs (project, name, creator, image, mem_limit, expires) VALUES ('mesh', 'desk', 'sedge', 'xdc-base:1', 4, '2099-01-01 00:00+00');
COMMIT;
BEGIN;
INSERT INTO portal.xdcs (project, name, creator, type, materialization) VALUES ('mesh', 'own', '', 'personal', 'one.mesh8.mesh');
COMMIT;
