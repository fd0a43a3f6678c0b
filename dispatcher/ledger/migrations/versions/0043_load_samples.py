"""Load by the minute. For results: the message that an opt-out came from, and counted reports. Pushes of WhatsApp texts."""

from alembic import op

revision = "0043"
down_revision = "0040"

# Each worker process adds to the rows of a minute every few seconds; rows of one day stay. Counts only: no person, no campaign.
SCHEMA = """
CREATE TABLE provider_minutes (
    minute timestamptz NOT NULL,
    provider text NOT NULL,                     -- empty in the row of a channel's own rate limit, which is over all its providers
    channel text NOT NULL,
    accepted integer NOT NULL,
    refused integer NOT NULL,
    throttled integer NOT NULL,
    unavailable integer NOT NULL,
    uncertain integer NOT NULL,
    answers integer[] NOT NULL,                 -- answers by bucket of their time
    put_back integer NOT NULL,                  -- messages that the rate limit put back
    wait_seconds_max real NOT NULL,             -- the longest wait of these
    openings integer NOT NULL,                  -- of circuit breakers, over all processes
    open_until timestamptz,
    PRIMARY KEY (minute, provider, channel)
);
CREATE TABLE lane_minutes (
    minute timestamptz NOT NULL,
    lane text NOT NULL,
    tasks_max integer NOT NULL,                 -- the most tasks that waited in the lane
    PRIMARY KEY (minute, lane)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON provider_minutes, lane_minutes TO dispatcher_worker;

-- Which message of a campaign an opt-out came from; none for those that follow no message of a campaign.
CREATE TABLE opt_out_origins (
    event_no bigint PRIMARY KEY,                -- in consent_events
    campaign_no bigint NOT NULL,
    period integer NOT NULL,
    chunk bigint NOT NULL,
    row integer NOT NULL,
    leg smallint NOT NULL,
    recorded_at timestamptz NOT NULL
);
CREATE INDEX opt_out_origins_by_campaign ON opt_out_origins (campaign_no);
GRANT SELECT, INSERT, DELETE ON opt_out_origins TO dispatcher_worker;

-- Delivery reports that changed a message, by minute: to count them in `provider_events` takes a third of a second for a large
-- campaign.
CREATE TABLE report_minutes (
    campaign_no bigint NOT NULL,
    measure text NOT NULL,                      -- delivered, read or complained
    minute timestamptz NOT NULL,                -- by the time that the provider names
    messages integer NOT NULL,
    PRIMARY KEY (campaign_no, measure, minute)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON report_minutes TO dispatcher_worker;

-- False for campaigns from before these two tables: their results are counted without them.
ALTER TABLE campaigns ADD COLUMN results_recorded boolean NOT NULL DEFAULT false;
ALTER TABLE campaigns ALTER COLUMN results_recorded SET DEFAULT true;

-- Which process pushes WhatsApp texts to an account: two at once would create and submit the same text twice.
CREATE TABLE whatsapp_pushes (
    account text PRIMARY KEY,
    until timestamptz NOT NULL                  -- then the process counts as lost
);
GRANT SELECT, INSERT, UPDATE, DELETE ON whatsapp_pushes TO dispatcher_worker;

CREATE OR REPLACE FUNCTION forget_conversions() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    DELETE FROM conversions WHERE campaign_no = OLD.no;
    DELETE FROM report_minutes WHERE campaign_no = OLD.no;
    DELETE FROM opt_out_origins WHERE campaign_no = OLD.no;
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
