"""Console sessions and failed sign-ins; roles with fewer rights: one for the web application, one that only reads."""

from alembic import op

revision = "0012"
down_revision = "0009"

SCHEMA = """
CREATE TABLE console_sessions (                 -- who is signed in; a session ends when its row is deleted
    id_hash bytea PRIMARY KEY,                  -- SHA-256 of the id in the cookie
    key_hash bytea NOT NULL,                    -- SHA-256 of the API key that started it
    actor text NOT NULL,                        -- the name of that key
    started_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL
);
CREATE INDEX console_sessions_by_end ON console_sessions (ends_at);

CREATE TABLE sign_in_failures (                 -- all web processes count together
    subject bytea PRIMARY KEY,                  -- keyed hash of a client's address, or of a key that was tried
    failures integer NOT NULL,
    last_at timestamptz NOT NULL
);
CREATE INDEX sign_in_failures_by_time ON sign_in_failures (last_at);
"""

WORKER = """
GRANT SELECT, INSERT, UPDATE, DELETE ON console_sessions, sign_in_failures TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
