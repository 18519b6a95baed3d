-- The sample portal: Merge's objects as relational tables, for the demo and the tests.
--
-- Merge keeps these objects as protobuf messages in etcd. No public schema of a portal on PostgreSQL exists, so this one is
-- ours. The columns carry the field names of Merge's portal/v1 messages (API 1.6.0) and the enum columns the names of its
-- enum values, so that a mapping written for it reads like Merge's documentation. A column or table marked [+] is in no
-- message of Merge; it is here because a relational portal commonly has it.
--
-- No publication is created here: `portal-audit sql source` prints the one that the mapping needs.
CREATE SCHEMA portal;
COMMENT ON SCHEMA portal IS 'Sample portal: the objects of a Merge testbed portal as tables.';

-- User. Its maps of projects, organizations and facilities are the member tables below.
CREATE TABLE portal.users (
    username             TEXT PRIMARY KEY,
    name                 TEXT NOT NULL DEFAULT '',
    email                TEXT NOT NULL DEFAULT '',
    -- A state is one of UserState 0 to 3. Merge has no state for a declined account: declining deletes it.
    state                TEXT NOT NULL DEFAULT 'NotSet' CHECK (state IN ('NotSet', 'Pending', 'Frozen', 'Active')),
    -- An access mode is one of AccessMode 0 to 2, here and below.
    access_mode          TEXT NOT NULL DEFAULT 'Public' CHECK (access_mode IN ('Public', 'Protected', 'Private')),
    uid                  BIGINT NOT NULL,
    gid                  BIGINT NOT NULL,
    admin                BOOLEAN NOT NULL DEFAULT FALSE,
    institution          TEXT NOT NULL DEFAULT '',
    category             TEXT NOT NULL DEFAULT '',
    country              TEXT NOT NULL DEFAULT '',
    usstate              TEXT NOT NULL DEFAULT '',
    created              TIMESTAMPTZ NOT NULL DEFAULT now(),
    demo_mode_expiration TIMESTAMPTZ,
    ver                  BIGINT NOT NULL DEFAULT 1
);
COMMENT ON TABLE portal.users IS 'Merge User. All columns are Merge''s.';
COMMENT ON COLUMN portal.users.ver IS 'Counts the writes to the object, as in every Merge message; a change of it alone says nothing.';

-- Organization. It names no creator: who created it is the member with role Creator.
CREATE TABLE portal.organizations (
    name        TEXT PRIMARY KEY,
    description TEXT NOT NULL DEFAULT '',
    oid         BIGINT NOT NULL,
    -- Organizations have the states of users.
    state       TEXT NOT NULL DEFAULT 'Pending' CHECK (state IN ('NotSet', 'Pending', 'Frozen', 'Active')),
    access_mode TEXT NOT NULL DEFAULT 'Public' CHECK (access_mode IN ('Public', 'Protected', 'Private')),
    category    TEXT NOT NULL DEFAULT '',
    subcategory TEXT NOT NULL DEFAULT '',
    created     TIMESTAMPTZ NOT NULL DEFAULT now(),
    ver         BIGINT NOT NULL DEFAULT 1
);
COMMENT ON TABLE portal.organizations IS 'Merge Organization. All columns are Merge''s.';

-- Project. Like the organization it names no creator. A user's personal project is one that bears the user's name.
CREATE TABLE portal.projects (
    name         TEXT PRIMARY KEY,
    description  TEXT NOT NULL DEFAULT '',
    organization TEXT REFERENCES portal.organizations (name) ON DELETE SET NULL,
    access_mode  TEXT NOT NULL DEFAULT 'Public' CHECK (access_mode IN ('Public', 'Protected', 'Private')),
    gid          BIGINT NOT NULL,
    -- Project.state is a UserState in Merge too.
    state        TEXT NOT NULL DEFAULT 'Pending' CHECK (state IN ('NotSet', 'Pending', 'Frozen', 'Active')),
    category     TEXT NOT NULL DEFAULT '',
    subcategory  TEXT NOT NULL DEFAULT '',
    created      TIMESTAMPTZ NOT NULL DEFAULT now(),
    ver          BIGINT NOT NULL DEFAULT 1
);
COMMENT ON TABLE portal.projects IS 'Merge Project. All columns are Merge''s.';

-- Organization.members and Organization.projects, two maps of Member, in one table told apart by kind.
CREATE TABLE portal.organization_members (
    organization TEXT NOT NULL REFERENCES portal.organizations (name) ON DELETE CASCADE,
    -- A kind is one of MembershipType 0 and 1.
    kind         TEXT NOT NULL CHECK (kind IN ('UserMember', 'ProjectMember')),
    id           TEXT NOT NULL,
    -- A role is one of MemberRole 0 to 2, here and below.
    role         TEXT NOT NULL DEFAULT 'Member' CHECK (role IN ('Member', 'Maintainer', 'Creator')),
    -- A state is one of MemberState 0 to 3, here and below. The two middle labels say which side has asked.
    state        TEXT NOT NULL DEFAULT 'Pending'
                 CHECK (state IN ('Pending', 'Active', 'MemberRequested', 'EntityRequested')),
    PRIMARY KEY (organization, kind, id)
);
COMMENT ON TABLE portal.organization_members IS
    'The maps Organization.members and Organization.projects. role and state are Merge''s Member; organization is the map''s owner.';
COMMENT ON COLUMN portal.organization_members.id IS
    'A username or a project name, as in RequestOrganizationMembershipRequest. No foreign key can point to both.';

-- Project.members, a map of Member by username.
CREATE TABLE portal.project_members (
    project  TEXT NOT NULL REFERENCES portal.projects (name) ON DELETE CASCADE,
    username TEXT NOT NULL REFERENCES portal.users (username) ON DELETE CASCADE,
    role     TEXT NOT NULL DEFAULT 'Member' CHECK (role IN ('Member', 'Maintainer', 'Creator')),
    -- Project members are added directly, without a request: Active is the usual start.
    state    TEXT NOT NULL DEFAULT 'Active'
             CHECK (state IN ('Pending', 'Active', 'MemberRequested', 'EntityRequested')),
    PRIMARY KEY (project, username)
);
COMMENT ON TABLE portal.project_members IS
    'The map Project.members. role and state are Merge''s Member; project and username are the map''s owner and key.';

-- Experiment. Its map of models is a table below. The one entity of the six that names its creator.
CREATE TABLE portal.experiments (
    project     TEXT NOT NULL REFERENCES portal.projects (name) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    access_mode TEXT NOT NULL DEFAULT 'Public' CHECK (access_mode IN ('Public', 'Protected', 'Private')),
    repository  TEXT NOT NULL DEFAULT '',
    creator     TEXT NOT NULL,
    maintainers TEXT[] NOT NULL DEFAULT '{}',
    created     TIMESTAMPTZ NOT NULL DEFAULT now(),
    ver         BIGINT NOT NULL DEFAULT 1,
    PRIMARY KEY (project, name)
);
COMMENT ON TABLE portal.experiments IS 'Merge Experiment. All columns are Merge''s.';

-- Experiment.models, a map of ExperimentModel by revision, which is a git commit.
CREATE TABLE portal.experiment_models (
    project      TEXT NOT NULL,
    experiment   TEXT NOT NULL,
    revision     TEXT NOT NULL,
    branch       TEXT,
    tag          TEXT,
    model_file   TEXT,
    in_progress  BOOLEAN NOT NULL DEFAULT TRUE,
    compiled     BOOLEAN NOT NULL DEFAULT FALSE,
    msg          TEXT NOT NULL DEFAULT '',
    compile_time TIMESTAMPTZ,
    PRIMARY KEY (project, experiment, revision),
    FOREIGN KEY (project, experiment) REFERENCES portal.experiments (project, name) ON DELETE CASCADE
);
COMMENT ON TABLE portal.experiment_models IS
    'Merge ExperimentModel. branch and tag are PushRequest''s, model_file is GetRevisionResponse''s: Merge keeps it in git.';

-- RealizeRequest, Realization and RealizationResult in one row.
CREATE TABLE portal.realizations (
    pid         TEXT NOT NULL,
    eid         TEXT NOT NULL,
    id          TEXT NOT NULL,
    revision    TEXT,
    tag         TEXT,
    branch      TEXT,
    xhash       TEXT,
    creator     TEXT NOT NULL,
    created     TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires     TIMESTAMPTZ,
    complete    BOOLEAN NOT NULL DEFAULT FALSE,
    -- A code is one of RealizeResponse.Code 0 to 3, or NULL while the realization is computed.
    code        TEXT CHECK (code IN ('Ok', 'BadXir', 'Unrealizable', 'InternalError')),
    diagnostics JSONB NOT NULL DEFAULT '[]',
    nodes       JSONB NOT NULL DEFAULT '{}',
    links       JSONB NOT NULL DEFAULT '{}',
    ver         BIGINT NOT NULL DEFAULT 1,
    PRIMARY KEY (pid, eid, id),
    FOREIGN KEY (pid, eid) REFERENCES portal.experiments (project, name) ON DELETE CASCADE
);
COMMENT ON TABLE portal.realizations IS 'Merge RealizeRequest, Realization and RealizationResult. All columns are Merge''s.';
COMMENT ON COLUMN portal.realizations.diagnostics IS 'List of {message, level, data, guest, host}.';
COMMENT ON COLUMN portal.realizations.nodes IS 'Map of node name to {resource, facility, kind, infranet_addr}.';

-- One row for each node that is placed on a resource.
CREATE TABLE portal.allocations (
    pid         TEXT NOT NULL,
    eid         TEXT NOT NULL,
    rid         TEXT NOT NULL,
    fid         TEXT NOT NULL,
    resource    TEXT NOT NULL,
    node        TEXT NOT NULL,
    virt        BOOLEAN NOT NULL,
    cores_used  INTEGER,
    memory_used BIGINT,
    -- virt is part of the key so that a DELETE still says whether a machine or a virtual node was given back.
    PRIMARY KEY (pid, eid, rid, fid, resource, node, virt),
    FOREIGN KEY (pid, eid, rid) REFERENCES portal.realizations (pid, eid, id) ON DELETE CASCADE
);
COMMENT ON TABLE portal.allocations IS
    'Merge Allocation; resource is xir ResourceAllocation''s. As rows of their own the cascade of a relinquish lists them one by one.';

-- Materialization with the summary of its tasks. Merge names no creator, neither here nor in the request.
CREATE TABLE portal.materializations (
    pid            TEXT NOT NULL,
    eid            TEXT NOT NULL,
    rid            TEXT NOT NULL,
    metal          JSONB NOT NULL DEFAULT '[]',
    vms            JSONB NOT NULL DEFAULT '[]',
    links          JSONB NOT NULL DEFAULT '[]',
    created        TIMESTAMPTZ NOT NULL DEFAULT now(),
    embed_version  TEXT,
    -- A status is one of TaskStatus.StatusType 0 to 6.
    highest_status TEXT NOT NULL DEFAULT 'Pending' CHECK (highest_status IN
                   ('Undefined', 'Success', 'Deleted', 'Pending', 'Unresponsive', 'Processing', 'Error')),
    messages       JSONB NOT NULL DEFAULT '[]',
    last_updated   TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (pid, eid, rid),
    FOREIGN KEY (pid, eid, rid) REFERENCES portal.realizations (pid, eid, id) ON DELETE CASCADE
);
COMMENT ON TABLE portal.materializations IS
    'Merge Materialization; highest_status, messages and last_updated are its task summary''s.';
COMMENT ON COLUMN portal.materializations.messages IS 'List of {level, message}.';

-- Facility, with its members and the resources that its operators switch on and off.
CREATE TABLE portal.facilities (
    name          TEXT PRIMARY KEY,
    address       TEXT NOT NULL,
    description   TEXT NOT NULL DEFAULT '',
    access_mode   TEXT NOT NULL DEFAULT 'Public' CHECK (access_mode IN ('Public', 'Protected', 'Private')),
    certificate   TEXT,
    cacertificate TEXT,
    properties    JSONB NOT NULL DEFAULT '{}',
    model         BYTEA,
    ver           BIGINT NOT NULL DEFAULT 1
);
COMMENT ON TABLE portal.facilities IS 'Merge Facility. All columns are Merge''s; it knows neither coordinates nor a status.';
COMMENT ON COLUMN portal.facilities.model IS 'The xir model of the whole facility: large, and nothing an audit event needs.';

CREATE TABLE portal.facility_members (
    facility TEXT NOT NULL REFERENCES portal.facilities (name) ON DELETE CASCADE,
    username TEXT NOT NULL,
    role     TEXT NOT NULL DEFAULT 'Member' CHECK (role IN ('Member', 'Maintainer', 'Creator')),
    state    TEXT NOT NULL DEFAULT 'Active'
             CHECK (state IN ('Pending', 'Active', 'MemberRequested', 'EntityRequested')),
    PRIMARY KEY (facility, username)
);
COMMENT ON TABLE portal.facility_members IS 'The map Facility.members.';

CREATE TABLE portal.facility_resources (
    facility TEXT NOT NULL REFERENCES portal.facilities (name) ON DELETE CASCADE,
    resource TEXT NOT NULL,
    alloc    TEXT[] NOT NULL DEFAULT '{}',
    roles    TEXT[] NOT NULL DEFAULT '{}',
    active   BOOLEAN NOT NULL DEFAULT TRUE,
    PRIMARY KEY (facility, resource)
);
COMMENT ON TABLE portal.facility_resources IS
    'One resource of a facility. active is what Activate- and DeactivateResourcesRequest switch; alloc and roles are xir''s.';

CREATE TABLE portal.pools (
    name          TEXT PRIMARY KEY,
    description   TEXT NOT NULL DEFAULT '',
    creator       TEXT NOT NULL,
    priority      BIGINT NOT NULL DEFAULT 0,
    projects      TEXT[] NOT NULL DEFAULT '{}',
    organizations TEXT[] NOT NULL DEFAULT '{}',
    facilities    JSONB NOT NULL DEFAULT '{}',
    ver           BIGINT NOT NULL DEFAULT 1
);
COMMENT ON TABLE portal.pools IS 'Merge Pool. All columns are Merge''s.';

CREATE TABLE portal.public_keys (
    username    TEXT NOT NULL REFERENCES portal.users (username) ON DELETE CASCADE,
    fingerprint TEXT NOT NULL,
    key         TEXT NOT NULL,
    PRIMARY KEY (username, fingerprint)
);
COMMENT ON TABLE portal.public_keys IS 'Merge PublicKey; username is its owner.';

CREATE TABLE portal.api_tokens (
    id          UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    username    TEXT NOT NULL REFERENCES portal.users (username) ON DELETE CASCADE,
    description TEXT NOT NULL DEFAULT '',
    token_hash  TEXT NOT NULL,
    created     TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_used   TIMESTAMPTZ,
    expires     TIMESTAMPTZ,
    revoked     BOOLEAN NOT NULL DEFAULT FALSE
);
COMMENT ON TABLE portal.api_tokens IS '[+] Merge has no API tokens; portals that have them keep them in a table like this.';
COMMENT ON COLUMN portal.api_tokens.token_hash IS 'A secret: never published.';

CREATE TABLE portal.xdcs (
    project             TEXT NOT NULL,
    name                TEXT NOT NULL,
    creator             TEXT NOT NULL,
    -- A type is one of XDCType 0 and 1.
    type                TEXT NOT NULL DEFAULT 'shared' CHECK (type IN ('shared', 'personal')),
    image               TEXT,
    mem_limit           INTEGER,
    cpu_limit           INTEGER,
    materialization     TEXT,
    realization_project TEXT,
    created             TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires             TIMESTAMPTZ,
    PRIMARY KEY (project, name)
);
COMMENT ON TABLE portal.xdcs IS 'Merge XDCStorage. All columns are Merge''s.';

-- Replica identities
--
-- Keys are names here, so under the default identity a DELETE already says what was deleted. More is needed where an event
-- tells what a row was before: the state it came from, the category and description it was deleted with, the role it had.
-- FULL gives that, at the price of the whole old row in the WAL of each UPDATE and DELETE, and it excludes a column list:
-- hence only on these six, which are small and hold no secret.
ALTER TABLE portal.users REPLICA IDENTITY FULL;
ALTER TABLE portal.organizations REPLICA IDENTITY FULL;
ALTER TABLE portal.projects REPLICA IDENTITY FULL;
ALTER TABLE portal.organization_members REPLICA IDENTITY FULL;
ALTER TABLE portal.project_members REPLICA IDENTITY FULL;
ALTER TABLE portal.experiments REPLICA IDENTITY FULL;

-- api_tokens holds a secret, so it needs a column list and must never be FULL. With this index a revocation still shows the
-- value before it, and a DELETE names the owner, while token_hash stays on the server.
CREATE UNIQUE INDEX api_tokens_identity ON portal.api_tokens (id, username, revoked);
ALTER TABLE portal.api_tokens REPLICA IDENTITY USING INDEX api_tokens_identity;
