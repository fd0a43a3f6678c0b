"""Campaigns that people write in the console, before they are submitted, and how they assigned the columns of their files."""

from alembic import op

revision = "0033"
down_revision = "0032"

SCHEMA = """
CREATE TABLE campaign_drafts (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner text NOT NULL,                        -- principal: only this person sees the draft
    form jsonb NOT NULL,                        -- the campaign form without its audience
    upload text,                                -- id of the uploaded audience; NULL: none yet
    file_name text NOT NULL DEFAULT '',         -- of the file on the person's machine
    file_check jsonb,                           -- rows that can be read, rows that cannot, and the first of these
    dry_run jsonb,                              -- counts of the last dry run
    updated_at timestamptz NOT NULL
);
CREATE INDEX campaign_drafts_by_owner ON campaign_drafts (owner);

CREATE TABLE column_mappings (                  -- remembered, so that the next file with this header needs no mapping
    owner text NOT NULL,
    template text NOT NULL,
    header bytea NOT NULL,                      -- SHA-256 of the header: a file without one would have personal data there
    columns text[] NOT NULL,                    -- by position: "recipient", "data.<variable>", or "-" for a column to ignore
    used_at timestamptz NOT NULL,
    PRIMARY KEY (owner, template, header)
);
"""

WORKER = """
GRANT SELECT, INSERT, UPDATE, DELETE ON campaign_drafts, column_mappings TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
