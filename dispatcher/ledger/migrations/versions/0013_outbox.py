"""Events out: the outbox, the published stream, and the triggers that write all kinds of changes but those of messages."""

from alembic import op

revision = "0013"
down_revision = "0012"

SCHEMA = """
CREATE TABLE outbox (                           -- changes that are not published yet; the changes of a message have no trigger
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    changes jsonb NOT NULL                      -- an array: one element for each event
);

-- Up to 1,000 events of one kind, in their order: first, first + 1 … last. There is no gap between one row and the next.
CREATE TABLE published_events (
    last bigint PRIMARY KEY,
    first bigint NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,                    -- when they were published
    events bytea NOT NULL,                      -- JSON lines, compressed
    previous_hash bytea NOT NULL,               -- of the event before the first one
    hash bytea NOT NULL                         -- of the last one: SHA-256 over the hash before it and its line
);
ALTER TABLE published_events ALTER events SET STORAGE EXTERNAL; -- compressed already
CREATE INDEX published_events_by_kind ON published_events (kind, last);
CREATE INDEX published_events_by_age ON published_events USING brin (at) WITH (autosummarize = on);

CREATE TABLE event_stream (                     -- one row: where the stream ends. Whoever publishes locks it
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    last bigint NOT NULL DEFAULT 0,
    hash bytea NOT NULL DEFAULT sha256('')
);
INSERT INTO event_stream DEFAULT VALUES;

-- An import can write the choices of a million people in one statement: in rows of 1,000.
CREATE FUNCTION consent_to_outbox() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    INSERT INTO outbox (kind, at, changes)
    SELECT 'consent', max(recorded_at), jsonb_agg(jsonb_build_array(
               no, recipient_id, seq, subject, old_value, new_value, source, said_at) ORDER BY no)
    FROM (SELECT *, (row_number() OVER (ORDER BY no) - 1) / 1000 AS part FROM new_rows) n GROUP BY part ORDER BY part;
    RETURN NULL;
END $$;
CREATE TRIGGER consent_to_outbox AFTER INSERT ON consent_events
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION consent_to_outbox();

CREATE FUNCTION owners_of(channel text, key bytea) RETURNS jsonb LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT coalesce(jsonb_agg(id ORDER BY id), '[]') FROM (
        SELECT id FROM recipients WHERE channel = 'email' AND email_key = key
        UNION ALL SELECT id FROM recipients WHERE channel = 'sms' AND phone_key = key
        UNION ALL SELECT id FROM recipients WHERE channel = 'whatsapp' AND whatsapp_key = key) owners
$$;
CREATE FUNCTION suppressions_to_outbox() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    INSERT INTO outbox (kind, at, changes)
    SELECT 'suppression', max(created_at), jsonb_agg(
               jsonb_build_array('set', no, channel, reason, source, owners_of(channel, address_key)) ORDER BY no)
    FROM (SELECT *, (row_number() OVER (ORDER BY no) - 1) / 1000 AS part FROM new_rows) n GROUP BY part ORDER BY part;
    RETURN NULL;
END $$;
CREATE TRIGGER suppressions_to_outbox AFTER INSERT ON suppressions
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION suppressions_to_outbox();
CREATE FUNCTION lifted_to_outbox() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    INSERT INTO outbox (kind, at, changes)
    VALUES ('suppression', NEW.lifted_at, jsonb_build_array(jsonb_build_array(
        'lifted', NEW.no, NEW.channel, NEW.reason, NEW.source, owners_of(NEW.channel, NEW.address_key))));
    RETURN NULL;
END $$;
CREATE TRIGGER lifted_to_outbox AFTER UPDATE OF lifted_at ON suppressions
    FOR EACH ROW WHEN (OLD.lifted_at IS NULL AND NEW.lifted_at IS NOT NULL) EXECUTE FUNCTION lifted_to_outbox();

CREATE FUNCTION inbound_to_outbox() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    INSERT INTO outbox (kind, at, changes)
    VALUES ('inbound', NEW.received_at, jsonb_build_array(jsonb_build_array(NEW.id, NEW.channel, NEW.meaning, NEW.recipients)));
    RETURN NULL;
END $$;
CREATE TRIGGER inbound_to_outbox AFTER INSERT ON inbound_texts FOR EACH ROW EXECUTE FUNCTION inbound_to_outbox();

-- A campaign is told when its audience is complete, or when its load is given up: then its row is deleted soon, so the change says
-- everything itself.
CREATE FUNCTION campaign_to_outbox() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    INSERT INTO outbox (kind, at, changes)
    VALUES ('campaign', clock_timestamp(), jsonb_build_array(jsonb_build_array(
        NEW.id, NEW.state, CASE WHEN OLD.fanned_out THEN OLD.state END, NEW.spec->>'entity',
        coalesce((SELECT jsonb_agg(v->>1) FROM jsonb_array_elements(NEW.spec->'variants') v),
                 jsonb_build_array(NEW.spec->>'template')),
        (SELECT coalesce(sum(size), 0) FROM chunks WHERE period = NEW.period AND campaign_no = NEW.no), NEW.invalid)));
    RETURN NULL;
END $$;
CREATE TRIGGER campaign_to_outbox AFTER UPDATE OF state, fanned_out ON campaigns
    FOR EACH ROW WHEN (NEW.fanned_out AND NOT OLD.fanned_out OR OLD.state <> NEW.state) EXECUTE FUNCTION campaign_to_outbox();

CREATE FUNCTION approval_to_outbox() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    INSERT INTO outbox (kind, at, changes)
    VALUES ('template', NEW.at, jsonb_build_array(jsonb_build_array(NEW.no, NEW.template, NEW.version, NEW.digest, NEW.approved)));
    RETURN NULL;
END $$;
CREATE TRIGGER approval_to_outbox AFTER INSERT ON template_approvals FOR EACH ROW EXECUTE FUNCTION approval_to_outbox();

CREATE FUNCTION erasure_to_outbox() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    INSERT INTO outbox (kind, at, changes) VALUES ('recipient', NEW.erased_at, jsonb_build_array(jsonb_build_array(NEW.id)));
    RETURN NULL;
END $$;
CREATE TRIGGER erasure_to_outbox AFTER UPDATE OF erased_at ON recipients
    FOR EACH ROW WHEN (OLD.erased_at IS NULL AND NEW.erased_at IS NOT NULL) EXECUTE FUNCTION erasure_to_outbox();

GRANT SELECT, INSERT, DELETE ON outbox, published_events TO dispatcher_worker;
GRANT SELECT, UPDATE ON event_stream TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
