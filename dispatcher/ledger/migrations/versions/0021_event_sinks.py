"""Events out to Kafka and to files: how far each is in the stream. Balances of campaigns: which have to be counted."""

from alembic import op

revision = "0021"
down_revision = "0020"

SCHEMA = """
-- A reader of the stream that this program has itself, where it is configured.
CREATE TABLE event_sinks (
    id text PRIMARY KEY CHECK (id IN ('kafka', 'files')),
    cursor bigint NOT NULL,                     -- the last event that is done
    progress jsonb NOT NULL DEFAULT '{}',       -- of files: the open period, and its files so far
    lease bigint NOT NULL DEFAULT 0,            -- a fencing token: who has a lower one may not write
    leased_until timestamptz NOT NULL DEFAULT '-infinity', -- by the clock of the database
    attempts integer NOT NULL DEFAULT 0,        -- that failed since the last success
    failing_since timestamptz,
    error text,                                 -- of the last attempt: a code
    next_try_at timestamptz NOT NULL DEFAULT '-infinity',
    done_at timestamptz                         -- the last success
);

-- What the last balance event of a campaign counted, and what has happened since: who publishes events writes `changed`. No foreign
-- key: its check would make publication wait for everybody who has locked the campaign.
CREATE TABLE campaign_balances (
    campaign_no bigint PRIMARY KEY,
    changed bigint NOT NULL,                    -- the number of an event after which nothing was published about the campaign
    counted bigint NOT NULL DEFAULT 0,          -- `changed` as it was before the last count
    state text,                                 -- of the campaign, as counted
    next_count_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
CREATE INDEX campaign_balances_stale ON campaign_balances (campaign_no) WHERE changed > counted;
CREATE FUNCTION forget_balance() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    DELETE FROM campaign_balances WHERE campaign_no = OLD.no;
    RETURN NULL;
END $$;
CREATE TRIGGER forget_balance AFTER DELETE ON campaigns FOR EACH ROW EXECUTE FUNCTION forget_balance();

GRANT SELECT, INSERT, UPDATE, DELETE ON event_sinks, campaign_balances TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
