"""Test sends: templates sent to named testers. Nothing of a customer, and no content."""

from alembic import op

revision = "0018"
down_revision = "0013"

SCHEMA = """
CREATE TABLE test_sends (                       -- one per message to a tester
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    template text NOT NULL,
    digest text NOT NULL,                       -- of the version that was sent
    tester text NOT NULL,                       -- a name from [testers] of the policy
    channel text NOT NULL,
    language text NOT NULL,
    mode text NOT NULL,
    actor text NOT NULL,                        -- who sent it
    campaign_no bigint,                         -- it is a seed of this campaign
    at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'sending',      -- it stays there if the process that sends is lost
    code text,                                  -- of the provider's refusal, or of its event
    provider text,
    receipt text,
    settled_at timestamptz
);
CREATE INDEX test_sends_by_template ON test_sends (template, no);
CREATE UNIQUE INDEX test_sends_of_campaign ON test_sends (campaign_no, template, tester, channel, language, mode)
    WHERE campaign_no IS NOT NULL;              -- a seed is sent once
GRANT SELECT, INSERT, UPDATE ON test_sends TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
