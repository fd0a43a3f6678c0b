"""Cap reservations know the address: a campaign sends it one message, and caps count by address too."""

from alembic import op

revision = "0010"
down_revision = "0009"

SCHEMA = """
ALTER TABLE cap_reservations
    ADD COLUMN address_key bytea,               -- keyed hash of the address that was written to; NULL for push
    ADD COLUMN once_in bigint;                  -- a campaign that sends one message to an address and channel; else NULL

-- It also finds the reservations of an address. Most of the rows of before, and those of push, are not in it.
CREATE UNIQUE INDEX cap_reservations_once ON cap_reservations (address_key, once_in, channel) WHERE address_key IS NOT NULL;

-- The rows, among these, whose address got another message than those `seen`, or the message of this campaign, through another
-- recipient. Volatile, so that it sees what was committed when it is called: by then the claim has locked its recipients. That does
-- not keep out claims for other recipients of the same address. So addresses that several recipients have are locked here: by the
-- first byte of the key, so that a claim takes 256 locks at most, and in its order, so that two claims cannot deadlock.
CREATE FUNCTION address_used_meanwhile(
    rows integer[], people text[], channels text[], keys bytea[], seen bigint[], since timestamptz, campaign bigint)
RETURNS SETOF integer LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS
$$ DECLARE bucket integer; BEGIN
    FOR bucket IN
        SELECT DISTINCT get_byte(e.key, 0) FROM unnest(people, channels, keys) AS e (recipient_id, channel, key)
        WHERE CASE WHEN e.channel = 'email'
              THEN EXISTS (SELECT FROM recipients r WHERE r.email_key = e.key AND r.id <> e.recipient_id)
              ELSE EXISTS (SELECT FROM recipients r WHERE r.phone_key = e.key AND r.id <> e.recipient_id)
                OR EXISTS (SELECT FROM recipients r WHERE r.whatsapp_key = e.key AND r.id <> e.recipient_id) END
        ORDER BY 1
    LOOP
        PERFORM pg_advisory_xact_lock(hashtext('addresses'), bucket);
    END LOOP;
    RETURN QUERY
    SELECT e.row FROM unnest(rows, people, channels, keys, seen) AS e (row, recipient_id, channel, key, seen)
    WHERE EXISTS (
        SELECT FROM cap_reservations s
        WHERE s.address_key = e.key AND s.recipient_id <> e.recipient_id
          AND (s.no > e.seen AND s.at >= since OR s.once_in = campaign AND s.channel = e.channel));
END $$;
"""

# For erasure and key rotation.
WORKER = """
GRANT UPDATE (address_key, once_in) ON cap_reservations TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
