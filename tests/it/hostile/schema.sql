CREATE SCHEMA h;
CREATE TABLE h.people (id TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE h.maps (id TEXT PRIMARY KEY, members JSONB, note TEXT);
ALTER TABLE h.maps REPLICA IDENTITY FULL;
CREATE TABLE h.documents (id SERIAL PRIMARY KEY, doc JSONB, raw JSON);
CREATE TABLE h.texts (
    id      SERIAL PRIMARY KEY,
    subject TEXT,
    target  TEXT,
    caller  TEXT,
    error   TEXT,
    failed  BOOLEAN DEFAULT TRUE,
    note    TEXT
);
ALTER TABLE h.texts REPLICA IDENTITY FULL;
