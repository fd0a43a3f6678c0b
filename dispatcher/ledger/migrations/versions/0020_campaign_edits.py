"""Campaigns that have not started, or are paused, can be edited: who changed which option, when."""

from alembic import op

revision = "0020"
down_revision = "0019"

SCHEMA = """
ALTER TABLE campaigns ADD COLUMN version integer NOT NULL DEFAULT 0;  -- the number of its edits; the ETag of the API

CREATE TABLE campaign_edits (
    campaign_no bigint NOT NULL REFERENCES campaigns (no) ON DELETE CASCADE,
    version integer NOT NULL,                   -- of the campaign after the edit
    at timestamptz NOT NULL,
    actor text NOT NULL,
    changes jsonb NOT NULL,                     -- option -> [before, after]
    is_material boolean NOT NULL,               -- its actor cannot release the campaign afterwards
    PRIMARY KEY (campaign_no, version)
);
GRANT SELECT, INSERT ON campaign_edits TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
