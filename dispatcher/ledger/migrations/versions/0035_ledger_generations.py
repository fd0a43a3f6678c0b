"""Generations of the ledger: each restore to an earlier moment begins one, and nothing is sent until a person releases it."""

from alembic import op

revision = "0035"
down_revision = "0034"

SCHEMA = """
CREATE TABLE ledger_generations (
    no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL DEFAULT gen_random_uuid(), -- marks outside the ledger name it
    began_at timestamptz NOT NULL,              -- for a restore: when it was noticed
    place text NOT NULL DEFAULT '',             -- of the rows: another cluster, database, table or timeline is another place
    cause text NOT NULL,                        -- how the restore was noticed; "start" for the first one
    restored_to timestamptz,                    -- the time of the newest change that the restored ledger has
    decisions jsonb NOT NULL DEFAULT '{}',      -- at the release: "send" or "unresolved" for each campaign, and for triggers
    released_at timestamptz,                    -- NULL: nothing is claimed
    released_by text
);
INSERT INTO ledger_generations (began_at, cause, released_at, released_by) VALUES (now(), 'start', now(), 'dispatcher');
ALTER TABLE chunks ADD COLUMN is_restored boolean NOT NULL DEFAULT false; -- its jobs without a message may have been sent
"""

WORKER = """
GRANT SELECT, INSERT ON ledger_generations TO dispatcher_worker;
GRANT UPDATE (place, decisions, released_at, released_by) ON ledger_generations TO dispatcher_worker;
GRANT SELECT, UPDATE ON SEQUENCE claim_number, chunk_no TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
