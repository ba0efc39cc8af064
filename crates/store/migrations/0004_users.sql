-- Who may do what. Nobody's password is here, only what it is checked against.

CREATE TABLE users (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE,
    password   TEXT NOT NULL,
    role       TEXT NOT NULL,
    created_ms INTEGER NOT NULL
);

-- A token is 160 random bits: its digest needs no salt.
CREATE TABLE api_tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    owner      INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    digest     TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER
);
CREATE INDEX api_tokens_by_owner ON api_tokens (owner, id);

-- What users are granted they are granted through roles. What one user is granted alone stands in a role that is theirs: `owner`.
CREATE TABLE roles (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace   TEXT NOT NULL,
    name        TEXT NOT NULL,
    description TEXT,
    owner       INTEGER REFERENCES users (id) ON DELETE CASCADE,
    UNIQUE (workspace, name)
);
CREATE TABLE role_permissions (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    role             INTEGER NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    resource_type    TEXT NOT NULL,
    resource_pattern TEXT NOT NULL,
    permission       TEXT NOT NULL,
    UNIQUE (role, resource_type, resource_pattern)
);
CREATE INDEX role_permissions_by_resource ON role_permissions (resource_type, resource_pattern);
CREATE TABLE user_roles (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    owner INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role  INTEGER NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    UNIQUE (owner, role)
);
CREATE INDEX user_roles_by_role ON user_roles (role);
