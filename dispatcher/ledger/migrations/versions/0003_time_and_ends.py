"""Campaigns keep their pace after a standstill, and new months are made without locking the tables that are in use."""

from alembic import op

revision = "0003"
down_revision = "0002"

SCHEMA = """
-- A table of its own: a claim locks the campaign's row in share mode, and the pace must not wait for claims.
CREATE TABLE campaign_paces (                   -- of campaigns with a rate; a row from the first chunk on
    campaign_no bigint PRIMARY KEY REFERENCES campaigns (no) ON DELETE CASCADE,
    next_send_at timestamptz NOT NULL           -- until then the messages taken so far use up the rate
) WITH (fillfactor = 50);

-- CREATE TABLE … PARTITION OF and DROP TABLE lock the parent against everybody. ATTACH PARTITION locks it against other changes of
-- the schema only: reading and writing go on.
CREATE OR REPLACE FUNCTION make_partitions(period integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS
$$ DECLARE parent text; child text; BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('partitions'));
    FOREACH parent IN ARRAY ARRAY['chunks', 'jobs', 'messages', 'provider_events'] LOOP
        child := parent || '_' || period;
        CONTINUE WHEN to_regclass(child) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS) WITH (fillfactor = %s)',
            child, parent, CASE parent WHEN 'messages' THEN 50 ELSE 100 END);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES IN (%s)', parent, child, period);
    END LOOP;
END $$;

-- The rows first, so that the parents are locked for a moment only. It gives up before PostgreSQL looks for a deadlock (after a
-- second), so that of the two it is never the other who loses.
CREATE OR REPLACE FUNCTION forget_month(month integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '500ms' AS
$$ DECLARE parent text; over timestamptz := (make_date(month / 100, month % 100, 1) + interval '1 month') AT TIME ZONE 'UTC'; BEGIN
    IF over > now() - interval '1 year' THEN RAISE EXCEPTION 'the month % is younger than a year', month; END IF;
    PERFORM pg_advisory_xact_lock(hashtext('partitions'));
    DELETE FROM audience_faults f USING campaigns c WHERE c.no = f.campaign_no AND c.period = month;
    DELETE FROM campaigns WHERE period = month;
    DELETE FROM triggers WHERE period = month;
    DELETE FROM doubts WHERE period = month;
    DELETE FROM inbound_texts WHERE received_at < over;
    FOREACH parent IN ARRAY ARRAY['chunks', 'jobs', 'messages', 'provider_events'] LOOP
        EXECUTE format('DROP TABLE IF EXISTS %I', parent || '_' || month);
    END LOOP;
END $$;
"""

WORKER = """
GRANT SELECT, INSERT, UPDATE ON campaign_paces TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
