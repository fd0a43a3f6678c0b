"""Load by the minute, for the operations page. For results: the message that an opt-out came from, and delivery reports counted."""

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

-- One row for each opt-out that a person made. Opt-outs from before this table have none. The columns are NULL where nothing
-- was sent to the person before.
CREATE TABLE opt_out_origins (
    event_no bigint PRIMARY KEY,                -- in consent_events
    recipient_id text NOT NULL,
    campaign_no bigint,                         -- NULL also for a trigger
    period integer,
    chunk bigint,
    row integer,
    leg smallint
);
CREATE INDEX opt_out_origins_by_campaign ON opt_out_origins (campaign_no);
CREATE INDEX opt_out_origins_by_recipient ON opt_out_origins (recipient_id);
GRANT SELECT, INSERT, DELETE ON opt_out_origins TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
