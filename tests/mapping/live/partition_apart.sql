CREATE TABLE portal.logins (id INT PRIMARY KEY, username TEXT, state TEXT) PARTITION BY RANGE (id);
ALTER TABLE portal.logins REPLICA IDENTITY FULL;
CREATE TABLE portal.logins_1 PARTITION OF portal.logins FOR VALUES FROM (0) TO (10);
ALTER PUBLICATION portal_audit ADD TABLE portal.logins;
