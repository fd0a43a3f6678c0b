"""Refused jobs are kept: calls of the public tasks, and broker messages, that were not accepted."""

from alembic import op

revision = "0011"
down_revision = "0010"

SCHEMA = """
CREATE TABLE refused_jobs (                     -- no value of their arguments
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,               -- keyed hash of task and arguments: the same call again counts on the same row
    task text NOT NULL,
    key text,                                   -- the campaign's id or the trigger's key; NULL: could not be read
    reason text NOT NULL,
    errors jsonb NOT NULL,                      -- [[field, message], …]
    count bigint NOT NULL DEFAULT 1,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    closed_at timestamptz,                      -- by a person; NULL: open, unless a job with its key was accepted later
    closed_by text
);
CREATE INDEX refused_jobs_last_at ON refused_jobs (last_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON refused_jobs TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
