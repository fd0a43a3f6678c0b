"""The ledger keeps the source of each template version, and campaigns and triggers name the versions they were accepted with."""

from alembic import op

revision = "0006"
down_revision = "0005"

SCHEMA = """
-- Any process can load a version by its digest, whatever its own folder of templates holds by now.
CREATE TABLE template_sources (
    digest text PRIMARY KEY,                    -- as in template_approvals
    template text NOT NULL,
    files jsonb NOT NULL,                       -- name -> text, of all files that the digest is computed over
    stored_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER template_sources_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON template_sources
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();

-- Template -> digest. Rows of before this revision, and of older processes that are still running, name none: each process takes
-- the version in its own folder. A process of this revision names the versions of open campaigns when it starts.
ALTER TABLE campaigns ADD COLUMN template_digests jsonb NOT NULL DEFAULT '{}';
ALTER TABLE triggers ADD COLUMN template_digests jsonb NOT NULL DEFAULT '{}';
"""

WORKER = """
GRANT SELECT, INSERT ON template_sources TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
