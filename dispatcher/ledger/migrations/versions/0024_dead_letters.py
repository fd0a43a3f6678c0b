"""A list of dead messages: to find them by their state read all messages, a second for each million."""

from alembic import op

revision = "0024"
down_revision = "0023"

SCHEMA = """
CREATE TABLE dead_letters (                     -- messages that were dead at `since`; one that was replayed is not in it
    period integer NOT NULL,
    chunk bigint NOT NULL,
    row integer NOT NULL,
    leg smallint NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (period, chunk, row, leg)
);
CREATE INDEX dead_letters_by_age ON dead_letters (since);
INSERT INTO dead_letters SELECT period, chunk, row, leg, updated_at FROM messages WHERE state = 'dead';
GRANT SELECT, INSERT, UPDATE, DELETE ON dead_letters TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
