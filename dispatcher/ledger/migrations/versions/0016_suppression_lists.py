"""Suppressions say since when they hold, who added them, and who lifted them why; looking an address up is recorded."""

from alembic import op

revision = "0016"
down_revision = "0015"

SCHEMA = """
ALTER TABLE suppressions
    ADD COLUMN since timestamptz,               -- when it came to be elsewhere, for an imported one; NULL: at created_at
    ADD COLUMN created_by text,                 -- who imported it; NULL where a provider or the person caused it
    ADD COLUMN lifted_by text,                  -- who lifted it, and why; NULL where the person's own START did
    ADD COLUMN lifted_because text;

CREATE TABLE suppression_lookups (              -- who looked up whether an address is suppressed
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    actor text NOT NULL,
    at timestamptz NOT NULL,
    shown bigint[] NOT NULL                     -- the suppressions that were shown: neither the address nor its hash
);

-- As before, but an imported suppression counts from its own date.
CREATE OR REPLACE FUNCTION lift_by_report(of_channel text, key bytea, reasons text[], said_at timestamptz, at_time timestamptz)
RETURNS SETOF bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS
$$  UPDATE suppressions s SET lifted_at = at_time
    WHERE s.channel = of_channel AND s.address_key = key AND s.lifted_at IS NULL AND s.reason = ANY (reasons)
      AND coalesce(s.since, s.created_at) <= said_at
      AND EXISTS (SELECT FROM provider_events e WHERE e.kind = 'opted_in' AND e.channel = of_channel AND e.at = said_at)
    RETURNING s.no $$;
"""

WORKER = """
GRANT SELECT, INSERT ON suppression_lookups TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
