CREATE TABLE portal.notes (name TEXT);
ALTER PUBLICATION portal_audit ADD TABLE portal.notes;
