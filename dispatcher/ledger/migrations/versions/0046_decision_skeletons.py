"""Decision skeletons: what the decisions of many messages have in common is stored once."""

from alembic import op

revision = "0046"
down_revision = "0045"

SCHEMA = """
CREATE TABLE decision_skeletons (               -- never changed or deleted: messages name them; they hold no personal data
    name text PRIMARY KEY,                      -- the start of the document's SHA-256
    document jsonb NOT NULL,                    -- a decision with places for the values that a message stores
    first_used_at timestamptz NOT NULL DEFAULT now()
-- Without statistics the planner takes the index. A plan that it made for few rows would read the whole table for each message, and
-- workers keep their plans.
) WITH (autovacuum_enabled = off);
GRANT SELECT, INSERT ON decision_skeletons TO dispatcher_worker;

-- Programs before this revision cannot read a decision that is stored so. Where this transaction makes the ledger, there are none.
UPDATE schema_compatibility SET oldest_program = '0046' WHERE xmin = pg_current_xact_id()::xid;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
