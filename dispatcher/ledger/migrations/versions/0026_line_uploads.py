"""Streams of recipients and choices can be resumed: which lines of an upload were taken."""

from alembic import op

revision = "0026"
down_revision = "0024"

SCHEMA = """
CREATE TABLE line_uploads (
    caller text NOT NULL,                       -- the name of the API key
    kind text NOT NULL,                         -- "recipients" or "preferences"
    id text NOT NULL,                           -- as the caller chose it
    lines_taken bigint NOT NULL,                -- the number of the last line that was taken
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (caller, kind, id)
);
CREATE INDEX line_uploads_changed_at ON line_uploads (changed_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON line_uploads TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
