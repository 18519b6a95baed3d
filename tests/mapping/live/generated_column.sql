ALTER TABLE portal.users ADD shout TEXT GENERATED ALWAYS AS (upper(username)) STORED;
