"""Heartbeats of beat and of each lane, so that a frozen worker or a dead beat is noticed within seconds."""

from alembic import op

revision = "0028"
down_revision = "0027"

SCHEMA = """
CREATE TABLE heartbeats (                    -- one row for beat and for each lane
    component text PRIMARY KEY,
    first_at timestamptz NOT NULL,              -- since the last start
    seen_at timestamptz NOT NULL,
    process text NOT NULL                       -- host and number of the process that wrote it
);
GRANT SELECT, INSERT, UPDATE, DELETE ON heartbeats TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
