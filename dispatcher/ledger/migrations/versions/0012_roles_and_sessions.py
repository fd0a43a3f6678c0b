"""Console sessions and failed sign-ins; functions for what a worker may do only as part of its task (see `ledger/roles.py`)."""

from alembic import op

revision = "0012"
down_revision = "0011"

SCHEMA = """
CREATE TABLE console_sessions (                 -- who is signed in; a session ends when its row is deleted
    id_hash bytea PRIMARY KEY,                  -- SHA-256 of the id in the cookie
    key_hash bytea NOT NULL,                    -- SHA-256 of the API key that started it
    actor text NOT NULL,                        -- the name of that key
    started_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL
);
CREATE INDEX console_sessions_by_end ON console_sessions (ends_at);

CREATE TABLE sign_in_failures (                 -- all web processes count together
    subject bytea PRIMARY KEY,                  -- keyed hash of a client's address, or of a key that was tried
    failures integer NOT NULL,
    last_at timestamptz NOT NULL
);
CREATE INDEX sign_in_failures_by_time ON sign_in_failures (last_at);

-- The three functions below do what a worker needs and has no right to do in general.

-- End a suppression because a provider reported that the person opted in again: only where there is such a report.
CREATE FUNCTION lift_by_report(of_channel text, key bytea, reasons text[], said_at timestamptz, at_time timestamptz)
RETURNS SETOF bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS
$$  UPDATE suppressions s SET lifted_at = at_time
    WHERE s.channel = of_channel AND s.address_key = key AND s.lifted_at IS NULL AND s.reason = ANY (reasons)
      AND s.created_at <= said_at
      AND EXISTS (SELECT FROM provider_events e WHERE e.kind = 'opted_in' AND e.channel = of_channel AND e.at = said_at)
    RETURNING s.no $$;

-- Erase a prospect, for retention. Nobody who is or was a customer.
CREATE FUNCTION erase_prospect(prospect text, at_time timestamptz) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS
$$  UPDATE recipients
    SET timezone = NULL, birth_date = NULL, entities = '{}', has_current_account = false, email = NULL, phone = NULL,
        whatsapp = NULL, email_key = NULL, phone_key = NULL, whatsapp_key = NULL, devices = '[]', partner_id = NULL,
        purchased = '{}', profile = '{}', rests = '{}', erased_at = at_time, updated_at = at_time, version = version + 1
    WHERE id = prospect AND person = 'prospect' $$;

-- Move addresses to the keys of the newest secret key: only in a ledger whose key was rotated. A ban that is in force under both
-- keys is one ban: the older row is lifted, the newer stays.
CREATE FUNCTION move_address_keys(old_keys bytea[], new_keys bytea[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS
$$ BEGIN
    IF (SELECT count(*) FROM secret_keys) < 2 THEN RAISE EXCEPTION 'the secret key of this ledger was never rotated'; END IF;
    WITH m AS MATERIALIZED (SELECT * FROM unnest(old_keys, new_keys) AS m (old, new))
    UPDATE recipients r
    SET email_key = coalesce((SELECT new FROM m WHERE old = r.email_key), r.email_key),
        phone_key = coalesce((SELECT new FROM m WHERE old = r.phone_key), r.phone_key),
        whatsapp_key = coalesce((SELECT new FROM m WHERE old = r.whatsapp_key), r.whatsapp_key)
    WHERE r.email_key = ANY (old_keys) OR r.phone_key = ANY (old_keys) OR r.whatsapp_key = ANY (old_keys);
    UPDATE suppressions s
    SET address_key = m.new,
        lifted_at = CASE WHEN s.lifted_at IS NULL AND EXISTS (
            SELECT FROM suppressions n WHERE n.address_key = m.new AND n.channel = s.channel AND n.lifted_at IS NULL)
            THEN now() ELSE s.lifted_at END
    FROM unnest(old_keys, new_keys) AS m (old, new) WHERE s.address_key = m.old;
END $$;
REVOKE EXECUTE ON FUNCTION lift_by_report, erase_prospect, move_address_keys FROM PUBLIC;
"""

WORKER = """
GRANT SELECT, INSERT, UPDATE, DELETE ON console_sessions, sign_in_failures TO dispatcher_worker;
GRANT EXECUTE ON FUNCTION lift_by_report, erase_prospect, move_address_keys TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
