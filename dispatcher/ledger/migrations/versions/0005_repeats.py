"""Publishing is remembered: when a chunk was put on the broker, how often again, and whether a task that applies events waits."""

from alembic import op

revision = "0005"
down_revision = "0004"

SCHEMA = """
-- `touched_at` moves with each batch that a worker claims, too; so a chunk touched after it was published is being worked on.
ALTER TABLE chunks
    ADD COLUMN published_at timestamptz,            -- when it was last put on the broker
    ADD COLUMN repeats smallint NOT NULL DEFAULT 0; -- how often it was put there again since it was last worked on

CREATE TABLE published_tasks (                  -- tasks of which one message on the broker is enough
    task text PRIMARY KEY,
    published_at timestamptz NOT NULL
);
"""

WORKER = """
GRANT SELECT, INSERT, UPDATE, DELETE ON published_tasks TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
