"""Canonical digests of submissions, provider events that are tried again on their own, complete specs."""

from alembic import op

revision = "0004"
down_revision = "0003"

SCHEMA = """
-- How `digest` was computed. Rows of before this revision, and of older processes that are still running, have version 1.
ALTER TABLE campaigns ADD COLUMN digest_version smallint NOT NULL DEFAULT 1;
ALTER TABLE triggers ADD COLUMN digest_version smallint NOT NULL DEFAULT 1;

-- An event that can't be applied waits on its own, and the others go on.
ALTER TABLE provider_events
    ADD COLUMN attempts smallint NOT NULL DEFAULT 0, -- that failed
    ADD COLUMN error text,                      -- of the last one: type and SQLSTATE, without personal data
    ADD COLUMN next_try_at timestamptz;         -- not before; NULL: at once
"""

# Specs of before an option existed have no key for it. The program reads them, but SQL compares some of the keys: without a
# `priority`, the chunks of a campaign were taken for triggers. The values are the defaults of each option.
SPECS = """
UPDATE {table} SET spec = defaults || spec
FROM (SELECT '{{"route": "first", "send_at": null, "expires_at": null, "rate_per_second": null, "holdout_percent": 0.0,
    "priority": 5, "fallback_after_seconds": null, "variants": [], "one_per_household": false, "ttl_seconds": null,
    "collapse_key": null, "offer_type": null}}'::jsonb AS defaults) AS d
WHERE NOT spec ?& ARRAY(SELECT jsonb_object_keys(defaults))
"""

# From PostgreSQL 16 on, who creates a role without being a superuser gets the right to grant it, but not to work in it.
ROLE = """
DO $$ BEGIN
    IF current_setting('server_version_num')::int >= 160000 THEN
        IF NOT pg_has_role(current_user, 'dispatcher_worker', 'SET') THEN
            EXECUTE format('GRANT dispatcher_worker TO %I', current_user);
        END IF;
    END IF;
END $$;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    for table in ("campaigns", "triggers"):
        op.execute(SPECS.format(table=table))
    op.execute(ROLE)
