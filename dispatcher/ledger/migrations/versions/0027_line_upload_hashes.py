"""Lines that are sent again under an upload id are compared with those that were taken."""

from alembic import op

revision = "0027"
down_revision = "0026"

# A hash for each line, not one for each batch: a client may begin again at any line.
SCHEMA = """
ALTER TABLE line_uploads ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY UNIQUE;
CREATE TABLE line_upload_hashes (
    upload bigint NOT NULL REFERENCES line_uploads (number) ON DELETE CASCADE,
    line bigint NOT NULL,
    hash bigint NOT NULL,                       -- keyed; 8 bytes of it
    PRIMARY KEY (upload, line)
);
GRANT SELECT, INSERT ON line_upload_hashes TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
