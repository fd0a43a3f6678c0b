"""People who sign in, and their sessions. Sessions of API keys end: a person signs in now."""

from alembic import op

revision = "0029"
down_revision = "0028"

SCHEMA = """
CREATE TABLE users (                            -- people; services have API keys
    id text PRIMARY KEY CHECK (id ~ '^user:[a-z0-9][a-z0-9._@-]{0,63}$'),
    name text NOT NULL,                         -- as pages show it
    email text NOT NULL DEFAULT '',
    password_hash text,                         -- argon2id; NULL: signs in with the identity provider only
    must_change boolean NOT NULL DEFAULT false, -- the password was given by somebody else
    totp_secret text,                           -- encrypted with the secret key; NULL: no second factor
    totp_step bigint NOT NULL DEFAULT 0,        -- of the newest code that was taken: none is taken twice
    recovery_hashes bytea[] NOT NULL DEFAULT '{}',
    roles text[] NOT NULL DEFAULT '{}',
    entities text[],                            -- NULL: all
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    disabled_at timestamptz,
    subject text UNIQUE                         -- at the identity provider: issuer and id; NULL: signs in here
);

CREATE TABLE sessions (                         -- who is signed in; a session ends when its row is deleted
    id_hash bytea PRIMARY KEY,                  -- SHA-256 of the id in the cookie or in the file of the command line
    user_id text NOT NULL REFERENCES users,
    place text NOT NULL,                        -- "console" or "command line"
    address text NOT NULL,                      -- the client's, or the host's name
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    confirmed_at timestamptz NOT NULL,          -- when password and code were last given
    ends_at timestamptz NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_end ON sessions (ends_at);

DROP TABLE console_sessions;
"""

WORKER = """
GRANT SELECT, INSERT, UPDATE ON users TO dispatcher_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
