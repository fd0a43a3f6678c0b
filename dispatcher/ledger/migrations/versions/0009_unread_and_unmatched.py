"""Events without our id are found by their address; unread replies that may be opt-outs hold advertising to their number."""

from alembic import op

revision = "0009"
down_revision = "0008"

SCHEMA = """
ALTER TABLE provider_events
    ADD COLUMN address_key bytea,               -- keyed hash of the address that it names, if its message id is not one of
                                                -- ours; deleted once it is applied
    ADD COLUMN unmatched boolean NOT NULL DEFAULT false; -- applied, but no message, person or address of ours was found

-- No index finds the unmatched events: PostgreSQL would read ten years of events to make it. They are counted where they alert.
ALTER TABLE alerts ADD COLUMN count bigint NOT NULL DEFAULT 1; -- how often, from `first_at` to `last_at`

-- While such a text is open, its number gets no advertising. Open ones of before are read as such: in doubt nothing is sent.
ALTER TABLE inbound_texts ADD COLUMN may_be_opt_out boolean NOT NULL DEFAULT false;
UPDATE inbound_texts SET may_be_opt_out = true WHERE meaning = 'unclear' AND closed_at IS NULL;
CREATE INDEX inbound_texts_unread ON inbound_texts (address_key) WHERE may_be_opt_out AND closed_at IS NULL;

-- As suppressed_meanwhile(rows, channels, keys), which workers of before still call; `commercial` messages also where a reply
-- from the number is unread. Volatile, so that it sees what was committed when it is called: by then the claim has locked the
-- recipients.
CREATE FUNCTION suppressed_meanwhile(rows integer[], channels text[], keys bytea[], commercial boolean)
RETURNS SETOF integer LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS
$$ BEGIN RETURN QUERY
    SELECT e.row FROM unnest(rows, channels, keys) AS e (row, channel, key)
    WHERE EXISTS (SELECT FROM suppressions s
                  WHERE s.address_key = e.key AND s.channel = e.channel AND s.lifted_at IS NULL)
       OR commercial AND e.channel IN ('sms', 'whatsapp')
          AND EXISTS (SELECT FROM inbound_texts t WHERE t.address_key = e.key AND t.may_be_opt_out AND t.closed_at IS NULL);
END $$;

-- As before, but an open text that holds a number stays.
CREATE OR REPLACE FUNCTION forget_month(month integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '500ms' AS
$$ DECLARE parent text; over timestamptz := (make_date(month / 100, month % 100, 1) + interval '1 month') AT TIME ZONE 'UTC'; BEGIN
    IF over > now() - interval '1 year' THEN RAISE EXCEPTION 'the month % is younger than a year', month; END IF;
    PERFORM pg_advisory_xact_lock(hashtext('partitions'));
    DELETE FROM audience_faults f USING campaigns c WHERE c.no = f.campaign_no AND c.period = month;
    DELETE FROM campaigns WHERE period = month;
    DELETE FROM triggers WHERE period = month;
    DELETE FROM doubts WHERE period = month;
    DELETE FROM inbound_texts WHERE received_at < over AND NOT (may_be_opt_out AND closed_at IS NULL);
    FOREACH parent IN ARRAY ARRAY['chunks', 'jobs', 'messages', 'provider_events'] LOOP
        EXECUTE format('DROP TABLE IF EXISTS %I', parent || '_' || month);
    END LOOP;
END $$;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
