"""In which language and time zone a person reads the console."""

from alembic import op

revision = "0040"
down_revision = "0039"

# NULL: the language of the browser, and the time zone of the bank. The set of time zones changes with tzdata, so it is not checked
# here; the console falls back to the bank's where it does not know one.
SCHEMA = """
ALTER TABLE users
    ADD COLUMN language text CHECK (language IN ('nl', 'fr', 'de', 'en')),
    ADD COLUMN zone text CHECK (length(zone) <= 60);
"""


def upgrade() -> None:
    op.execute(SCHEMA)
