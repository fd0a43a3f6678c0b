"""The dry runs of a submitted campaign: who releases it sees what its submitter saw."""

from alembic import op

revision = "0045"
down_revision = "0044"

SCHEMA = """
CREATE TABLE campaign_dry_runs (
    campaign_no bigint NOT NULL REFERENCES campaigns (no) ON DELETE CASCADE,
    made_at timestamptz NOT NULL,
    actor text NOT NULL,                        -- principal
    policy text NOT NULL,                       -- digest
    templates jsonb NOT NULL,                   -- name -> digest
    counts jsonb NOT NULL,                      -- numbers by state, reason, channel and country: nothing of one recipient
    PRIMARY KEY (campaign_no, made_at, actor)
);
GRANT SELECT, INSERT ON campaign_dry_runs TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
