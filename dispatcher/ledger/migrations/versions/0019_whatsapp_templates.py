"""WhatsApp templates: the ContentSid and the approval of each text, by account."""

from alembic import op

revision = "0019"
down_revision = "0018"

SCHEMA = """
CREATE TABLE whatsapp_templates (
    account text NOT NULL,                      -- of the provider, such as twilio:AC…: another account has other ids
    template text NOT NULL,
    language text NOT NULL,
    mode text NOT NULL,
    digest text NOT NULL,                       -- of the text and its buttons: another text needs another approval
    name text NOT NULL,                         -- its name at the provider
    content_sid text NOT NULL,
    category text NOT NULL,                     -- that the template's kind demands
    status text NOT NULL,
    rejection_reason text NOT NULL,
    changed_at timestamptz NOT NULL,
    checked_at timestamptz NOT NULL,            -- when the provider was last asked
    PRIMARY KEY (account, template, language, mode, digest)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON whatsapp_templates TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
