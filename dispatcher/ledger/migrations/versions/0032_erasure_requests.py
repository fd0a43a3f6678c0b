"""Requests to erase a customer, which a second person approves."""

from alembic import op

revision = "0032"
down_revision = "0031"

SCHEMA = """
CREATE TABLE erasure_requests (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recipient_id text NOT NULL,
    reason text NOT NULL,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL,
    decided_by text,
    decided_at timestamptz,
    approved boolean,
    CHECK (num_nulls(decided_by, decided_at, approved) IN (0, 3))
);
CREATE UNIQUE INDEX erasure_requests_open ON erasure_requests (recipient_id) WHERE decided_at IS NULL;
"""

WORKER = """
GRANT SELECT, INSERT ON erasure_requests TO dispatcher_worker;
GRANT UPDATE (decided_by, decided_at, approved) ON erasure_requests TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
