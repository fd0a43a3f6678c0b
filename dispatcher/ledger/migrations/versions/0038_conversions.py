"""Conversions of campaigns: which recipients did what the campaign is for. And opt-outs by time, for the results of a campaign."""

from alembic import op

revision = "0038"
down_revision = "0037"

SCHEMA = """
CREATE TABLE conversions (
    campaign_no bigint NOT NULL,
    goal text NOT NULL,
    recipient_id text NOT NULL,                 -- of the audience: also of the control group
    at timestamptz NOT NULL,                    -- the first time
    PRIMARY KEY (campaign_no, goal, recipient_id)
);
CREATE INDEX conversions_by_recipient ON conversions (recipient_id);
CREATE FUNCTION forget_conversions() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    DELETE FROM conversions WHERE campaign_no = OLD.no;
    RETURN NULL;
END $$;
CREATE TRIGGER forget_conversions AFTER DELETE ON campaigns FOR EACH ROW EXECUTE FUNCTION forget_conversions();

-- The results of a campaign read the opt-outs of some weeks. Rows are only added, in the order of this column.
CREATE INDEX consent_events_by_time ON consent_events USING brin (recorded_at) WITH (autosummarize = on);

GRANT SELECT, INSERT, UPDATE, DELETE ON conversions TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
