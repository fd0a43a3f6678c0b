"""Audiences are loaded in parts: how far a load is, so that it goes on after an interruption, and how one is taken back."""

from alembic import op

revision = "0008"
down_revision = "0007"

SCHEMA = """
-- A table of its own: a claim of another campaign never waits for it, and what is loaded leaves no dead rows in `campaigns`.
CREATE TABLE audience_loads (                   -- of campaigns whose audience is larger than one part
    campaign_no bigint PRIMARY KEY REFERENCES campaigns (no) ON DELETE CASCADE,
    digest bytea NOT NULL,                      -- of the form and of the rows read so far, version 3
    rows_read bigint NOT NULL,                  -- jobs and invalid rows that are committed: the next part starts after them
    taken bigint NOT NULL,                      -- jobs
    path text,                                  -- NULL: the rows are with their submitter only
    size bigint,                                -- of the file, and when it was changed last: another version of it is refused
    modified_ns bigint,
    worked_at timestamptz,                      -- when somebody last worked on it; NULL: nobody does
    progress_at timestamptz NOT NULL,           -- when the last part was committed
    -- Jobs of refused and abandoned ones are deleted; of refused ones the campaign too.
    ended text CHECK (ended IN ('complete', 'refused', 'abandoned'))
) WITH (fillfactor = 50);

-- Workers have no right to delete jobs. This function deletes those of a load that has ended, some chunks at a time; true once
-- nothing is left. It cannot touch a campaign whose audience was ever complete.
CREATE FUNCTION unload_audience(campaign bigint, chunks_max integer) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS
$$ DECLARE why text; month integer; numbers bigint[]; BEGIN
    SELECT l.ended, c.period INTO why, month FROM audience_loads l JOIN campaigns c ON c.no = l.campaign_no
    WHERE l.campaign_no = campaign AND l.ended IN ('refused', 'abandoned') AND NOT c.fanned_out FOR UPDATE;
    IF NOT FOUND THEN RETURN true; END IF;
    numbers := ARRAY(SELECT chunk FROM chunks WHERE period = month AND campaign_no = campaign ORDER BY chunk LIMIT chunks_max);
    DELETE FROM jobs WHERE period = month AND chunk = ANY (numbers);
    DELETE FROM chunks WHERE period = month AND chunk = ANY (numbers);
    IF cardinality(numbers) = chunks_max THEN RETURN false; END IF;
    DELETE FROM audience_faults WHERE campaign_no = campaign;
    DELETE FROM audience_loads WHERE campaign_no = campaign;
    IF why = 'refused' THEN DELETE FROM campaigns WHERE no = campaign; END IF;
    RETURN true;
END $$;
REVOKE EXECUTE ON FUNCTION unload_audience FROM PUBLIC;
"""

WORKER = """
GRANT SELECT, INSERT, UPDATE, DELETE ON audience_loads TO dispatcher_worker;
GRANT EXECUTE ON FUNCTION unload_audience TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
