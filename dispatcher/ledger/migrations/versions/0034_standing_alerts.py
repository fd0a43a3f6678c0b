"""Alerts about standstills: when each began and ended, who was told, who takes care of it."""

from alembic import op

revision = "0034"
down_revision = "0033"

SCHEMA = """
CREATE TABLE standing_alerts (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    subject text NOT NULL,                      -- the lane, channel or campaign; empty where there is only one
    text text NOT NULL,
    began_at timestamptz NOT NULL,
    notified_at timestamptz,                    -- when the last notification was sent
    acknowledged_at timestamptz,
    acknowledged_by text,
    ended_at timestamptz
);
CREATE UNIQUE INDEX standing_alerts_open ON standing_alerts (kind, subject) WHERE ended_at IS NULL;
CREATE INDEX standing_alerts_ended ON standing_alerts (ended_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON standing_alerts TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
