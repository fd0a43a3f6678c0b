"""Which programs can work with the schema, so that workers of two versions run side by side during an upgrade."""

from alembic import op

revision = "0039"
down_revision = "0038"

# The newest revision that the oldest usable program knows. A migration that removes what older programs use raises it.
SCHEMA = """
CREATE TABLE schema_compatibility (             -- one row
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    oldest_program text NOT NULL
);
INSERT INTO schema_compatibility (oldest_program) VALUES ('0039');
GRANT SELECT ON schema_compatibility TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
