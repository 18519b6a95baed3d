-- A portal of another shape: surrogate keys everywhere, names only in the parents, role codes as numbers, two schemas.
CREATE SCHEMA people;
CREATE SCHEMA work;
CREATE TABLE people.account (
    id      UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    login   TEXT NOT NULL,
    made_at TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
);
CREATE TABLE work.team (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title      TEXT NOT NULL,
    owner_id   UUID NOT NULL REFERENCES people.account (id) ON DELETE CASCADE,
    created_at TIMESTAMPTZ DEFAULT now()
);
CREATE TABLE work.team_member (
    team_id    BIGINT NOT NULL REFERENCES work.team (id) ON DELETE CASCADE,
    account_id UUID NOT NULL REFERENCES people.account (id) ON DELETE CASCADE,
    role       SMALLINT NOT NULL DEFAULT 0,
    PRIMARY KEY (team_id, account_id)
);
