"""Webhooks out: endpoints that events are delivered to, and their cursors on the published stream."""

from alembic import op

revision = "0015"
down_revision = "0013"

SCHEMA = """
CREATE TABLE event_endpoints (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- never used again: secrets are derived from it
    id text NOT NULL UNIQUE,                    -- as the operator chose it
    url text NOT NULL,
    types text[] NOT NULL,                      -- patterns; empty: all
    entities text[] NOT NULL,                   -- empty: all
    campaigns text[] NOT NULL,                  -- patterns; empty: all
    batch_max integer NOT NULL CHECK (batch_max > 0),
    revision integer NOT NULL DEFAULT 1,        -- part of webhook ids: other filters make other batches
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled')),
    disabled_reason text,
    secret_version integer NOT NULL DEFAULT 1,
    old_secret_until timestamptz,               -- until then, the secret before signs too
    lease bigint NOT NULL DEFAULT 0,            -- a fencing token: who has a lower one may not write
    leased_until timestamptz NOT NULL DEFAULT '-infinity', -- by the clock of the database
    delivered_at timestamptz,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL
);

-- A reader's place in the stream. One is live and follows it; a replay ends at its last event; a dead one waits for a person.
CREATE TABLE endpoint_cursors (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_no bigint NOT NULL REFERENCES event_endpoints ON DELETE CASCADE,
    state text NOT NULL CHECK (state IN ('live', 'replay', 'dead')),
    cursor bigint NOT NULL,                     -- the last event that is done
    last bigint,                                -- where the range ends
    in_flight bigint,                           -- the last event of the batch that is being sent: a retry sends the same batch
    attempts integer NOT NULL DEFAULT 0,        -- of this batch
    failing_since timestamptz,
    error text,                                 -- of the last attempt: a code
    next_try_at timestamptz NOT NULL,
    since timestamptz NOT NULL,                 -- a batch is given up only so long after this
    used_at timestamptz,
    CHECK ((state = 'live') = (last IS NULL))
);
CREATE UNIQUE INDEX endpoint_cursors_live ON endpoint_cursors (endpoint_no) WHERE state = 'live';
CREATE INDEX endpoint_cursors_by_endpoint ON endpoint_cursors (endpoint_no, last);

GRANT SELECT, INSERT, UPDATE, DELETE ON event_endpoints, endpoint_cursors TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
