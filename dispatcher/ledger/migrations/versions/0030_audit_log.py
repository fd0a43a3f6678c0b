"""The audit log: who did or looked at what. Append-only, in one hash chain."""

from alembic import op

revision = "0030"
down_revision = "0029"

SCHEMA = """
CREATE TABLE audit_log (
    no bigint PRIMARY KEY,                      -- consecutive: a missing number is a removed row
    at timestamptz NOT NULL,
    principal_id text NOT NULL,
    principal_name text NOT NULL,
    kind text NOT NULL,                         -- "user" or "service"
    place text NOT NULL,                        -- "console", "api" or "command line"
    address text NOT NULL,                      -- the client's, or the host's name
    action text NOT NULL,
    outcome text NOT NULL,                      -- "begun", and "refused" in a second row
    object_type text NOT NULL,
    object_id text NOT NULL,
    recipient text,                             -- on whom: an id
    entity text,
    reason text NOT NULL,
    detail jsonb NOT NULL,                      -- ids and counts only
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL
);
CREATE INDEX audit_log_by_recipient ON audit_log (recipient, no) WHERE recipient IS NOT NULL;
CREATE INDEX audit_log_by_principal ON audit_log (principal_id, no);
CREATE INDEX audit_log_by_object ON audit_log (object_type, object_id, no);
CREATE INDEX audit_log_by_time ON audit_log (at);
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();

CREATE TABLE audit_log_end (                    -- one row, whose lock gives rows their order
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    first_no bigint NOT NULL DEFAULT 1,         -- rows before it were deleted by retention
    no bigint NOT NULL DEFAULT 0,
    head bytea,
    seal bytea
);
INSERT INTO audit_log_end DEFAULT VALUES;

-- Delete some of the oldest rows, for retention: nothing younger than a year.
CREATE FUNCTION forget_audit(before timestamptz, most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS
$$ DECLARE last bigint; deleted integer; BEGIN
    IF before > now() - interval '1 year' THEN RAISE EXCEPTION '% is less than a year ago', before; END IF;
    PERFORM FROM audit_log_end FOR UPDATE;
    SELECT max(no) INTO last FROM (SELECT no FROM audit_log
        WHERE no < coalesce((SELECT min(no) FROM audit_log WHERE at >= before), 9223372036854775807) ORDER BY no LIMIT most) o;
    IF last IS NULL THEN RETURN 0; END IF;
    PERFORM set_config('dispatcher.retention', 'on', true);
    DELETE FROM audit_log WHERE no <= last;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM set_config('dispatcher.retention', '', true);
    UPDATE audit_log_end SET first_no = last + 1;
    RETURN deleted;
END $$;
REVOKE EXECUTE ON FUNCTION forget_audit FROM PUBLIC;
"""

WORKER = """
GRANT SELECT, INSERT ON audit_log TO dispatcher_worker;
GRANT SELECT ON audit_log_end TO dispatcher_worker;
GRANT UPDATE (no, head, seal) ON audit_log_end TO dispatcher_worker;
GRANT EXECUTE ON FUNCTION forget_audit TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
