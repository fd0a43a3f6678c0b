"""Claims get a number and an address key: a settle matches the number, a later event finds the address that was written to."""

from alembic import op

revision = "0002"
down_revision = "0001"

SCHEMA = """
-- The fencing token of a claim: each claim takes the next number, and only who names it may settle its messages.
CREATE SEQUENCE claim_number;

ALTER TABLE messages
    ADD COLUMN claim_no bigint,                 -- of the claim that is not settled yet; NULL once it is
    ADD COLUMN address_key bytea;               -- keyed hash of the address that was written to; NULL for push

-- A claim is started before its first byte leaves, or revoked when it expires without a start. Whoever writes the row first wins,
-- so a revoked claim sends nothing, and the messages of a started one are never sent again by machine.
CREATE TABLE claim_starts (
    claim_no bigint PRIMARY KEY,
    is_revoked boolean NOT NULL DEFAULT false,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The rows, among these, whose address is suppressed now. Volatile, so that it sees what was committed when it is called and not
-- when the statement began that calls it: by then the claim has locked the recipients.
CREATE FUNCTION suppressed_meanwhile(rows integer[], channels text[], keys bytea[])
RETURNS SETOF integer LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS
$$ BEGIN RETURN QUERY
    SELECT e.row FROM unnest(rows, channels, keys) AS e (row, channel, key)
    WHERE EXISTS (SELECT FROM suppressions s
                  WHERE s.address_key = e.key AND s.channel = e.channel AND s.lifted_at IS NULL);
END $$;

-- Whether this approval still is the newest word on its digest. Volatile for the same reason.
CREATE FUNCTION approval_stands(approval bigint)
RETURNS boolean LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS
$$ BEGIN RETURN NOT EXISTS (
    SELECT FROM template_approvals a JOIN template_approvals later
        ON later.template = a.template AND later.digest = a.digest AND later.no > a.no AND NOT later.approved
    WHERE a.no = approval);
END $$;

-- The parameter is set inside: only a superuser may attach a parameter of our own to a function.
CREATE OR REPLACE FUNCTION forget_erased(before timestamptz, most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS
$$ DECLARE gone text[]; BEGIN
    IF before > now() - interval '1 year' THEN RAISE EXCEPTION '% is less than a year ago', before; END IF;
    PERFORM set_config('dispatcher.retention', 'on', true);
    gone := ARRAY(SELECT id FROM recipients WHERE erased_at < before ORDER BY erased_at LIMIT most FOR UPDATE SKIP LOCKED);
    DELETE FROM consent_events WHERE recipient_id = ANY (gone);
    DELETE FROM recipients WHERE id = ANY (gone);
    PERFORM set_config('dispatcher.retention', 'off', true);
    RETURN cardinality(gone);
END $$;
"""

WORKER = """
GRANT USAGE ON SEQUENCE claim_number TO dispatcher_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON claim_starts TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
