-- Campus: a portal of another shape, for the tests and for who writes a mapping of their own.
--
-- Whatever the sample portal of portal.sql does not do, a real one may: keys without a meaning in two schemas, states as
-- numbers, as a PostgreSQL enum and with a prefix, roles in a table, members in a JSON map, members in one table for
-- everything, deletion by a mark, rows in partitions. deploy/mapping/campus.toml is the mapping of all this.
CREATE SCHEMA people;
CREATE SCHEMA lab;

CREATE TYPE people.account_state AS ENUM ('ACCOUNT_STATE_PENDING', 'ACCOUNT_STATE_ACTIVE', 'ACCOUNT_STATE_FROZEN');

-- Deletion is a mark; the row goes weeks later, when a job cleans up.
CREATE TABLE people.account (
    id         UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    login      TEXT NOT NULL UNIQUE,
    state      people.account_state NOT NULL DEFAULT 'ACCOUNT_STATE_PENDING',
    created_at TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    updated_by UUID REFERENCES people.account (id) ON DELETE SET NULL,
    deleted_at TIMESTAMP
);
CREATE TABLE people.role (
    id    SMALLINT PRIMARY KEY,
    title TEXT NOT NULL
);
INSERT INTO people.role VALUES (0, 'Member'), (1, 'Maintainer'), (2, 'Creator');

-- Members are a JSON map of login to {role, state}, as in Merge's own objects.
CREATE TABLE lab.organization (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title      TEXT NOT NULL,
    category   TEXT NOT NULL DEFAULT '',
    about      TEXT NOT NULL DEFAULT '',
    -- 0 not set, 1 pending, 2 frozen, 3 active
    state      SMALLINT NOT NULL DEFAULT 1,
    members    JSONB NOT NULL DEFAULT '{}',
    labels     TEXT[] NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_by UUID REFERENCES people.account (id) ON DELETE SET NULL
);
CREATE TABLE lab.project (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id BIGINT REFERENCES lab.organization (id) ON DELETE CASCADE,
    title           TEXT NOT NULL,
    category        TEXT NOT NULL DEFAULT '',
    about           TEXT NOT NULL DEFAULT '',
    is_deleted      BOOLEAN NOT NULL DEFAULT FALSE,
    created_at      TIMESTAMPTZ NOT NULL DEFAULT now()
);
-- One table for whoever is a member of whatever: what `entity_id` and `member` mean, the two types say.
CREATE TABLE lab.membership (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity_type TEXT NOT NULL CHECK (entity_type IN ('project', 'experiment')),
    entity_id   BIGINT NOT NULL,
    member_type TEXT NOT NULL CHECK (member_type IN ('account', 'project')),
    member      TEXT NOT NULL,
    role_id     SMALLINT NOT NULL REFERENCES people.role (id),
    granted_by  UUID
);
CREATE TABLE lab.experiment (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id BIGINT NOT NULL REFERENCES lab.project (id) ON DELETE CASCADE,
    title      TEXT NOT NULL,
    owner_id   UUID NOT NULL
);
-- Runs of experiments lie in a partition for each site; a run that is moved to another site moves there.
CREATE TABLE lab.run (
    id            BIGINT NOT NULL,
    site          TEXT NOT NULL,
    experiment_id BIGINT NOT NULL REFERENCES lab.experiment (id) ON DELETE CASCADE,
    -- 0 waiting, 1 running, 2 done, 3 failed
    status        SMALLINT NOT NULL DEFAULT 0,
    reason        TEXT,
    PRIMARY KEY (id, site)
) PARTITION BY LIST (site);
CREATE TABLE lab.run_east PARTITION OF lab.run FOR VALUES IN ('east');
CREATE TABLE lab.run_west PARTITION OF lab.run FOR VALUES IN ('west');
