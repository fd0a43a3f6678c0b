"""Recurring campaigns; labels in campaign events; who changed an event endpoint, and which deliveries were skipped."""

from alembic import op

revision = "0023"
down_revision = "0021"

SCHEMA = """
CREATE TABLE schedules (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    definition jsonb NOT NULL,                  -- the form as it was submitted: cron, zone, the campaign's fields
    state text NOT NULL CHECK (state IN ('awaiting_approval', 'active', 'paused', 'ended')),
    submitted_by text NOT NULL,
    approved_by text,
    created_at timestamptz NOT NULL,
    next_at timestamptz                         -- of the next run; null: there is none any more
);
CREATE INDEX schedules_due ON schedules (next_at) WHERE state = 'active';

CREATE TABLE schedule_changes (
    schedule_no bigint NOT NULL REFERENCES schedules ON DELETE CASCADE,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,                       -- add, approve, pause, resume, end
    state text NOT NULL                         -- after it
);
CREATE INDEX schedule_changes_by_schedule ON schedule_changes (schedule_no, at);

CREATE TABLE schedule_runs (
    schedule_no bigint NOT NULL REFERENCES schedules ON DELETE CASCADE,
    due_at timestamptz NOT NULL,
    campaign_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'started', 'skipped', 'failed')),
    reason text,                                -- a code: why it was skipped or failed
    message text NOT NULL DEFAULT '',           -- the same for people, without personal data
    upload text,                                -- the audience that was chosen, before the campaign is submitted
    sha256 text,                                -- of that audience
    taken_at timestamptz,                       -- when a process began to start it
    settled_at timestamptz,
    PRIMARY KEY (schedule_no, due_at)
);
CREATE INDEX schedule_runs_pending ON schedule_runs (due_at) WHERE state = 'pending';
CREATE INDEX schedule_runs_by_age ON schedule_runs (settled_at);

GRANT SELECT, INSERT, UPDATE ON schedules TO dispatcher_worker;
GRANT SELECT, INSERT ON schedule_changes TO dispatcher_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON schedule_runs TO dispatcher_worker;

-- The endpoint may be removed since: no reference.
CREATE TABLE endpoint_changes (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_no bigint NOT NULL,
    endpoint_id text NOT NULL,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,                       -- add, change, rotate, enable, disable, replay, skip, remove
    reason text NOT NULL DEFAULT '',            -- in the actor's words, of a skip
    detail jsonb NOT NULL DEFAULT '{}'          -- names of changed fields, numbers of events; no URL: its query can hold a token
);
CREATE INDEX endpoint_changes_by_endpoint ON endpoint_changes (endpoint_no, no);
GRANT SELECT, INSERT ON endpoint_changes TO dispatcher_worker;

CREATE OR REPLACE FUNCTION campaign_to_outbox() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    INSERT INTO outbox (kind, at, changes)
    VALUES ('campaign', clock_timestamp(), jsonb_build_array(jsonb_build_array(
        NEW.id, NEW.state, CASE WHEN OLD.fanned_out THEN OLD.state END, NEW.spec->>'entity',
        coalesce((SELECT jsonb_agg(v->>1) FROM jsonb_array_elements(NEW.spec->'variants') v),
                 jsonb_build_array(NEW.spec->>'template')),
        (SELECT coalesce(sum(size), 0) FROM chunks WHERE period = NEW.period AND campaign_no = NEW.no), NEW.invalid,
        coalesce(NEW.spec->'tags', '[]'), NEW.spec->>'cost_centre')));
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
