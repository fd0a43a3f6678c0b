"""Requests to erase a customer are deleted by retention."""

from alembic import op

revision = "0037"
down_revision = "0035"

SCHEMA = """
CREATE INDEX erasure_requests_decided ON erasure_requests (decided_at) WHERE decided_at IS NOT NULL;
GRANT DELETE ON erasure_requests TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
