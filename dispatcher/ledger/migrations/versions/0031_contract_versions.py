"""The version of the contract that a choice of "tailored" accepted, and the texts of all versions that were ever in use."""

from alembic import op

revision = "0031"
down_revision = "0030"

# A text is stored under its digest too: where somebody changes the file of a version in place, both texts stay.
SCHEMA = """
ALTER TABLE consent_events ADD COLUMN contract_version text NOT NULL DEFAULT '';
CREATE TABLE contract_texts (
    version text NOT NULL,
    entity text NOT NULL,                       -- "" for the text that all entities share
    language text NOT NULL,
    digest text NOT NULL,                       -- SHA-256 of `body`
    body text NOT NULL,                         -- as in the file
    stored_at timestamptz NOT NULL,
    PRIMARY KEY (version, entity, language, digest)
);
GRANT SELECT, INSERT ON contract_texts TO dispatcher_worker;
CREATE TRIGGER contract_texts_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON contract_texts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();
"""


def upgrade() -> None:
    op.execute(SCHEMA)
