CREATE SCHEMA t;
CREATE TABLE t.kinds (id TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE t.texts (
    id      SERIAL PRIMARY KEY,
    subject TEXT NOT NULL,
    twice   INT GENERATED ALWAYS AS (length(subject) * 2) STORED,
    kind    TEXT,
    note    TEXT,
    code    INT,
    state   TEXT,
    number  NUMERIC,
    real8   DOUBLE PRECISION,
    real4   REAL,
    flag    BOOLEAN,
    padded  CHAR(6),
    big     TEXT,
    at      TIMESTAMPTZ NOT NULL DEFAULT '2026-01-02 03:04:05.678901+00'
);
ALTER TABLE t.texts ALTER big SET STORAGE EXTERNAL;
CREATE TABLE t.documents (id SERIAL PRIMARY KEY, json JSON, document JSONB);
CREATE TABLE t.parents (name TEXT PRIMARY KEY);
CREATE TABLE t.children (
    parent   TEXT NOT NULL REFERENCES t.parents ON DELETE CASCADE,
    resource TEXT NOT NULL,
    PRIMARY KEY (parent, resource)
);
