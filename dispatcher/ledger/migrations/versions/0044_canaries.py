"""Canary recipients: who they are, their opt-outs, and how long after each a message was still under way."""

from alembic import op

revision = "0044"
down_revision = "0043"

SCHEMA = """
CREATE TABLE canaries (
    recipient_id text PRIMARY KEY CHECK (starts_with(recipient_id, 'canary:')),
    way text NOT NULL,                          -- the way in which it opts out
    address_keys bytea[] NOT NULL,              -- keyed hashes of its addresses: their suppressions are deleted with it
    made_at timestamptz NOT NULL,
    retired_at timestamptz
);
CREATE UNIQUE INDEX canaries_in_use ON canaries (way) WHERE retired_at IS NULL;

CREATE TABLE canary_rounds (                    -- one per opt-out; all times are those of the database's clock
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    way text NOT NULL,
    recipient_id text NOT NULL,
    step smallint NOT NULL DEFAULT 0,           -- the last step that a process began
    stepped_at timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    answered_at timestamptz,                    -- when the way out had answered
    closed_at timestamptz,
    outcome text CHECK (outcome IN ('measured', 'not_measured')),
    reason text,                                -- why it was not measured
    bound_seconds double precision NOT NULL,
    jobs integer,
    claim_seconds double precision,             -- from the answer to the last claim after it; 0 where there was none
    hand_off_seconds double precision,
    arrival_seconds double precision,
    awaits_arrivals boolean NOT NULL DEFAULT false,
    is_late boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX canary_rounds_open ON canary_rounds (way) WHERE closed_at IS NULL;
CREATE INDEX canary_rounds_by_start ON canary_rounds (started_at);

CREATE TABLE canary_jobs (                      -- the triggers of a round
    round_no bigint NOT NULL,
    period integer NOT NULL,
    chunk bigint NOT NULL,
    channel text NOT NULL,
    step smallint NOT NULL,
    PRIMARY KEY (round_no, chunk)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON canaries, canary_rounds, canary_jobs TO dispatcher_worker;

-- Messages that were claimed up to then may be deleted: that a claim of that time is missing is no sign of a restore.
ALTER TABLE ledger_generations ADD COLUMN forgotten_until timestamptz;

-- A worker may add no recipient, except a canary.
CREATE FUNCTION make_canary(of_way text, person jsonb, at_time timestamptz) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS
$$  WITH made AS (
        INSERT INTO canaries (recipient_id, way, address_keys, made_at)
        SELECT p.id, of_way, array_remove(ARRAY[p.email_key, p.phone_key, p.whatsapp_key], NULL), at_time
        FROM jsonb_populate_record(NULL::recipients, person) p
        RETURNING recipient_id
    )
    INSERT INTO recipients (id, person, language, timezone, birth_date, entities, has_current_account, email, phone, whatsapp,
                            email_key, phone_key, whatsapp_key, devices, purchased, profile, consent_seal, created_at, updated_at)
    SELECT made.recipient_id, p.person, p.language, p.timezone, p.birth_date, p.entities, p.has_current_account, p.email, p.phone,
           p.whatsapp, p.email_key, p.phone_key, p.whatsapp_key, p.devices, p.purchased, p.profile, p.consent_seal, at_time, at_time
    FROM made, jsonb_populate_record(NULL::recipients, person) p $$;

-- The next canary gets the addresses of this one.
CREATE FUNCTION retire_canary(of_way text, at_time timestamptz) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS
$$  WITH retired AS (
        UPDATE canaries SET retired_at = at_time WHERE way = of_way AND retired_at IS NULL RETURNING recipient_id
    )
    UPDATE recipients r
    SET email = NULL, phone = NULL, whatsapp = NULL, email_key = NULL, phone_key = NULL, whatsapp_key = NULL, devices = '[]',
        profile = '{}', erased_at = at_time, updated_at = at_time, version = r.version + 1
    FROM retired WHERE r.id = retired.recipient_id $$;

-- A canary is nobody, so its evidence is not kept: it is deleted as a whole, with its consent events and messages. The measurements
-- stay.
CREATE FUNCTION forget_canaries(before timestamptz, most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS
$$ DECLARE gone text[]; its_chunks bigint[]; BEGIN
    gone := ARRAY(SELECT recipient_id FROM canaries WHERE retired_at < before ORDER BY retired_at LIMIT most
                  FOR UPDATE SKIP LOCKED);
    its_chunks := ARRAY(SELECT chunk FROM jobs WHERE campaign_no IS NULL AND recipient_id = ANY (gone));
    PERFORM set_config('dispatcher.retention', 'on', true);
    DELETE FROM consent_events WHERE recipient_id = ANY (gone);
    PERFORM set_config('dispatcher.retention', 'off', true);
    DELETE FROM provider_events e USING messages m
    WHERE m.recipient_id = ANY (gone) AND m.campaign_no IS NULL
      AND (e.period, e.chunk, e.row, e.leg) = (m.period, m.chunk, m.row, m.leg);
    DELETE FROM doubts d USING messages m
    WHERE m.recipient_id = ANY (gone) AND (d.period, d.chunk, d.row, d.leg) = (m.period, m.chunk, m.row, m.leg);
    UPDATE ledger_generations g SET forgotten_until = greatest(g.forgotten_until, newest.claimed_at)
    FROM (SELECT max(claimed_at) AS claimed_at FROM messages WHERE recipient_id = ANY (gone) AND campaign_no IS NULL) newest
    WHERE g.no = (SELECT max(no) FROM ledger_generations);
    DELETE FROM messages WHERE recipient_id = ANY (gone) AND campaign_no IS NULL;
    DELETE FROM jobs WHERE recipient_id = ANY (gone) AND campaign_no IS NULL;
    DELETE FROM triggers WHERE chunk = ANY (its_chunks);
    DELETE FROM chunks WHERE chunk = ANY (its_chunks) AND campaign_no IS NULL;
    DELETE FROM canary_jobs WHERE chunk = ANY (its_chunks);
    DELETE FROM cap_reservations WHERE recipient_id = ANY (gone);
    DELETE FROM inbound_texts WHERE recipients && gone AND recipients <@ gone;
    DELETE FROM suppressions s USING canaries c
    WHERE c.recipient_id = ANY (gone) AND s.address_key = ANY (c.address_keys) AND s.lifted_at < before;
    DELETE FROM recipients WHERE id = ANY (gone);
    DELETE FROM canaries WHERE recipient_id = ANY (gone);
    RETURN cardinality(gone);
END $$;
REVOKE EXECUTE ON FUNCTION make_canary, retire_canary, forget_canaries FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_canary, retire_canary, forget_canaries TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
