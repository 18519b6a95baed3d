ALTER PUBLICATION portal_audit DROP TABLE portal.realizations;
ALTER PUBLICATION portal_audit ADD TABLE portal.realizations;
