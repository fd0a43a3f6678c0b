"""The ledger: recipients, consent events, suppressions, campaigns, jobs, messages, provider events.

Some tables and columns have older names than the code: `misses` holds soft bounces, `doubts` unresolved messages, `rests`
cool-downs, `conversations` the starts of service windows, `strikes` a soft-bounce limit.

`period` is the month (202611) in which a campaign or trigger came in. It partitions everything that grows, so that retention
drops partitions: `jobs` (content, short-lived), `messages` and `provider_events` (decisions, long-lived).
"""

from alembic import op

revision = "0001"
down_revision = None

SCHEMA = """
CREATE TABLE policies (
    digest text PRIMARY KEY,
    body text NOT NULL,
    first_used_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE template_approvals (               -- who approved which exact template version; the newest row of a digest counts
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    template text NOT NULL,
    version text NOT NULL,                      -- as the template declares it; only the digest identifies a version
    digest text NOT NULL,
    approved boolean NOT NULL,                  -- false: the approval is withdrawn
    actor text NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX template_approvals_by_template ON template_approvals (template, digest, no);

CREATE TABLE recipients (
    id text PRIMARY KEY,
    version bigint NOT NULL DEFAULT 1,          -- grows with every change that could alter a decision
    person text NOT NULL,
    language text NOT NULL,
    timezone text,
    birth_date date,
    entities text[] NOT NULL DEFAULT '{}',
    has_current_account boolean NOT NULL DEFAULT false,
    email text,
    phone text,
    whatsapp text,
    email_key bytea,                            -- keyed hashes of the addresses, to find their suppressions
    phone_key bytea,
    whatsapp_key bytea,
    devices jsonb NOT NULL DEFAULT '[]',        -- [{"token", "platform", "permission"}]
    partner_id text,
    purchased text[] NOT NULL DEFAULT '{}',
    profile jsonb NOT NULL DEFAULT '{}',        -- data category -> variable -> value
    choices jsonb NOT NULL DEFAULT '{}',        -- subject -> {"value", "event", "source", "at"}: derived from consent_events
    rests jsonb NOT NULL DEFAULT '{}',          -- channel -> {"until", "code"}: a provider's own limit per person
    consent_seq integer NOT NULL DEFAULT 0,     -- the last link of this person's chain of consent events
    consent_head bytea,
    consent_seal bytea NOT NULL,                -- keyed hash over id, seq and head: without the key nobody can shorten a chain
    erased_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX recipients_by_email_key ON recipients (email_key) WHERE email_key IS NOT NULL;
CREATE INDEX recipients_by_phone_key ON recipients (phone_key) WHERE phone_key IS NOT NULL;
CREATE INDEX recipients_by_whatsapp_key ON recipients (whatsapp_key) WHERE whatsapp_key IS NOT NULL;

-- For retention: prospects, and erased people.
CREATE INDEX recipients_prospects ON recipients (created_at) WHERE person = 'prospect' AND erased_at IS NULL;
CREATE INDEX recipients_erased ON recipients (erased_at) WHERE erased_at IS NOT NULL;

CREATE TABLE consent_events (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recipient_id text NOT NULL,
    seq integer NOT NULL,                       -- 1, 2, 3 … per person, without gaps
    subject text NOT NULL,                      -- offer:own … channel:email … objection:marketing | objection:profiling
    old_value text,
    new_value text NOT NULL,
    source text NOT NULL,
    actor text NOT NULL,
    wording text NOT NULL DEFAULT '',
    said_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,                        -- keyed hash over the row and the previous hash
    UNIQUE (recipient_id, seq)
);

CREATE TABLE suppressions (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel text NOT NULL,
    address_key bytea NOT NULL,
    reason text NOT NULL,
    source text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    lifted_at timestamptz
);
CREATE UNIQUE INDEX suppressions_in_force ON suppressions (address_key, channel) WHERE lifted_at IS NULL;

CREATE TABLE campaigns (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    period integer NOT NULL,
    state text NOT NULL CHECK (state IN ('awaiting_release', 'scheduled', 'running', 'paused', 'finished', 'cancelled')),
    spec jsonb NOT NULL,
    digest bytea NOT NULL,                      -- of what was submitted: the same id with other content is refused
    fanned_out boolean NOT NULL DEFAULT false,
    invalid integer NOT NULL DEFAULT 0,
    submitted_by text NOT NULL DEFAULT '',
    released_by text,                           -- the second person, where the size requires one
    note text NOT NULL DEFAULT '',              -- why it was paused, or a warning of the complaint brake
    braked jsonb NOT NULL DEFAULT '{}',         -- the counts when the brake last paused it: later counts are compared with these
    created_at timestamptz NOT NULL,
    paused_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    cleared_at timestamptz                      -- when its variables were deleted
);

CREATE TABLE audience_faults (
    campaign_no bigint NOT NULL REFERENCES campaigns (no),
    line integer NOT NULL,
    field text NOT NULL,
    message text NOT NULL
);
CREATE INDEX audience_faults_by_campaign ON audience_faults (campaign_no);

CREATE TABLE triggers (
    key text PRIMARY KEY,
    digest bytea NOT NULL,
    period integer NOT NULL,
    chunk bigint NOT NULL UNIQUE,
    spec jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE SEQUENCE chunk_no;

CREATE TABLE chunks (                           -- the unit of work of a task: up to 1,000 jobs of a campaign, or one trigger
    period integer NOT NULL,
    chunk bigint NOT NULL,
    campaign_no bigint,
    size integer NOT NULL,
    accepted integer NOT NULL DEFAULT 0,        -- accepted messages: the complaint brake's rates are shares of them
    due_at timestamptz NOT NULL,                -- when it may start (send_at, rate)
    touched_at timestamptz,                     -- when it was last put on the broker
    done_at timestamptz,                        -- every job of it has a message, and none is pending or claimed
    PRIMARY KEY (period, chunk)
) PARTITION BY LIST (period);
CREATE INDEX chunks_open ON chunks (campaign_no, due_at, chunk) WHERE done_at IS NULL;
CREATE INDEX chunks_by_campaign ON chunks (campaign_no, chunk);

CREATE TABLE jobs (                             -- one recipient each, with the variables: content, kept for a short time
    period integer NOT NULL,
    chunk bigint NOT NULL,
    row integer NOT NULL,
    campaign_no bigint,
    line integer NOT NULL DEFAULT 0,
    recipient_id text NOT NULL,
    repeat_of text,                             -- message id of this person's earlier job in the campaign
    data jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (period, chunk, row)
) PARTITION BY LIST (period);
CREATE UNIQUE INDEX jobs_once ON jobs (period, campaign_no, recipient_id) WHERE repeat_of IS NULL AND campaign_no IS NOT NULL;

-- A person's jobs are found by their campaigns, through jobs_once; only the few that aren't in it need an index of their own.
CREATE INDEX jobs_by_recipient ON jobs (recipient_id) WHERE campaign_no IS NULL OR repeat_of IS NOT NULL;

-- For retention: triggers that still have variables, oldest first.
CREATE INDEX jobs_with_content ON jobs (period, chunk) WHERE campaign_no IS NULL AND data <> '{}';

CREATE TABLE messages (                         -- one leg of a job; a job without one is pending
    period integer NOT NULL,
    chunk bigint NOT NULL,
    row integer NOT NULL,
    leg smallint NOT NULL DEFAULT 0,
    attempts smallint NOT NULL DEFAULT 0,
    campaign_no bigint,
    until timestamptz,                          -- when a held or waiting message is decided again; else when the next leg is due
    claimed_at timestamptz,
    accepted_at timestamptz,
    updated_at timestamptz NOT NULL,
    recipient_id text NOT NULL,
    channel text,                               -- NULL while no channel was chosen
    state text NOT NULL,
    reason text,
    receipt text,                               -- the provider's own id
    provider text,
    returned text[],                            -- receipts of attempts that reached nobody, as the provider reported later
    decision jsonb NOT NULL,
    PRIMARY KEY (period, chunk, row, leg)
) PARTITION BY LIST (period);
-- No index mentions `state`: a message changes it several times, and PostgreSQL keeps such updates cheap (HOT) only then.
CREATE INDEX messages_by_recipient ON messages (recipient_id);
CREATE INDEX messages_parked ON messages (until) WHERE until IS NOT NULL;

CREATE TABLE cap_reservations (                 -- what frequency caps count; deleted when it is older than every cap's window
    no bigint GENERATED ALWAYS AS IDENTITY,     -- grows per person, because the recipient's row is locked while one is written
    recipient_id text NOT NULL,
    at timestamptz NOT NULL,
    channel text NOT NULL,
    offer_type text NOT NULL,
    chunk bigint NOT NULL,
    row integer NOT NULL,
    leg smallint NOT NULL
);
CREATE INDEX cap_reservations_by_recipient ON cap_reservations (recipient_id);
CREATE INDEX cap_reservations_by_age ON cap_reservations USING brin (at) WITH (autosummarize = on);

-- The rows whose person got another message than those `seen`. Volatile, so that it sees what is committed when it is called, and
-- not only what was committed when the calling statement began: at the call, the claim has locked these people.
CREATE FUNCTION sent_meanwhile(
    rows integer[], people text[], seen bigint[], since timestamptz, own_chunk bigint, legs_are_one boolean)
RETURNS SETOF integer LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS
$$ BEGIN RETURN QUERY
    SELECT e.row FROM unnest(rows, people, seen) AS e (row, recipient_id, seen)
    WHERE EXISTS (
        SELECT FROM cap_reservations s
        WHERE s.recipient_id = e.recipient_id AND s.no > e.seen AND s.at >= since
          AND NOT (legs_are_one AND s.chunk = own_chunk AND s.row = e.row));
END $$;

CREATE TABLE provider_events (
    period integer NOT NULL,
    provider text NOT NULL,
    id text NOT NULL,
    kind text NOT NULL,
    channel text NOT NULL,
    code text,
    receipt text,
    chunk bigint,                               -- the message it is about, where the provider reports it
    row integer,
    leg smallint,
    again_seconds double precision,             -- a failure after which the message may be sent again: after how long, how often
    again_max smallint,
    strikes smallint,                           -- so many such failures in a row suppress the address
    extra jsonb,                                -- fields that no rule knows, without addresses; kept for a short time
    at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    PRIMARY KEY (period, provider, id)
) PARTITION BY LIST (period);
CREATE INDEX provider_events_unsettled ON provider_events (received_at) WHERE settled_at IS NULL;
CREATE INDEX provider_events_bad ON provider_events (period, chunk) WHERE kind IN ('complained', 'bounced');
CREATE INDEX provider_events_by_message ON provider_events (period, chunk, row, leg);

CREATE INDEX provider_events_extra ON provider_events (received_at) WHERE extra IS NOT NULL;

CREATE TABLE doubts (                           -- unresolved messages: whether a look-up is still possible, and when
    period integer NOT NULL,
    chunk bigint NOT NULL,
    row integer NOT NULL,
    leg smallint NOT NULL,
    since timestamptz NOT NULL,
    ask_at timestamptz,                         -- NULL: no look-up any more; a provider event may still come, else a person decides
    asked smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (period, chunk, row, leg)
);
CREATE INDEX doubts_due ON doubts (ask_at) WHERE ask_at IS NOT NULL;

CREATE TABLE misses (                           -- soft bounces of an address in a row; a delivery deletes them
    address_key bytea NOT NULL,
    channel text NOT NULL,
    code text NOT NULL,
    message text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (address_key, channel, code, message)
);

CREATE TABLE conversations (                    -- when a number last wrote by WhatsApp: for 24 hours free text is possible
    address_key bytea PRIMARY KEY,
    heard_at timestamptz NOT NULL
);

CREATE TABLE inbound_texts (                    -- inbound messages; one row each, so that none is applied twice
    id text PRIMARY KEY,                        -- the provider's
    channel text NOT NULL,
    address_key bytea NOT NULL,
    recipients text[] NOT NULL,                 -- all who had the number
    meaning text NOT NULL,
    words text,                                 -- the text, of unclear ones only, and for a short time
    received_at timestamptz NOT NULL,
    closed_at timestamptz,                      -- when a person had read it
    closed_by text
);
CREATE INDEX inbound_texts_kept ON inbound_texts (received_at) WHERE words IS NOT NULL;
CREATE INDEX inbound_texts_by_recipient ON inbound_texts USING gin (recipients);

CREATE TABLE alerts (                           -- providers' codes that a person should look at
    provider text NOT NULL,
    code text NOT NULL,
    known boolean NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (provider, code)
);

CREATE TABLE channel_stops (                    -- a channel whose keys or settings are wrong sends nothing until a check passes
    channel text PRIMARY KEY,
    provider text NOT NULL,
    code text NOT NULL,
    stopped_at timestamptz NOT NULL DEFAULT now()
);

-- Consent events and approvals are append-only. A trigger stops the owner of the tables, also by accident; all others have no right
-- to change them.
CREATE FUNCTION refuse_rewrite() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    IF TG_OP = 'DELETE' AND current_setting('dispatcher.retention', true) = 'on' THEN RETURN NULL; END IF;  -- see forget_erased
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER template_approvals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON template_approvals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();
CREATE TRIGGER consent_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON consent_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();

-- New months need new partitions, which only the owner may create; workers call this function.
CREATE FUNCTION make_partitions(period integer) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS
$$ DECLARE parent text; BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('partitions'));
    FOREACH parent IN ARRAY ARRAY['chunks', 'jobs', 'messages', 'provider_events'] LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES IN (%s) WITH (fillfactor = %s)',
            parent || '_' || period, parent, period, CASE parent WHEN 'messages' THEN 50 ELSE 100 END);
    END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION make_partitions FROM PUBLIC;

-- Only the owner may drop a month; workers call this function. It refuses months that are younger than a year.
CREATE FUNCTION forget_month(month integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS
$$ DECLARE parent text; over timestamptz := (make_date(month / 100, month % 100, 1) + interval '1 month') AT TIME ZONE 'UTC'; BEGIN
    IF over > now() - interval '1 year' THEN RAISE EXCEPTION 'the month % is younger than a year', month; END IF;
    PERFORM pg_advisory_xact_lock(hashtext('partitions'));
    FOREACH parent IN ARRAY ARRAY['chunks', 'jobs', 'messages', 'provider_events'] LOOP
        EXECUTE format('DROP TABLE IF EXISTS %I', parent || '_' || month);
    END LOOP;
    DELETE FROM audience_faults f USING campaigns c WHERE c.no = f.campaign_no AND c.period = month;
    DELETE FROM campaigns WHERE period = month;
    DELETE FROM triggers WHERE period = month;
    DELETE FROM doubts WHERE period = month;
    DELETE FROM inbound_texts WHERE received_at < over;
END $$;

-- An erased person's chain is deleted completely, with the person's row: a chain with a missing part would look forged.
-- This function had the clause SET dispatcher.retention = 'on', which only a superuser may write: no other owner could create the
-- schema. It is the only edit of this file that is no comment. 0002 replaces the function by one that sets the parameter inside: a
-- migrated ledger is the same with and without the edit.
CREATE FUNCTION forget_erased(before timestamptz, most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS
$$ DECLARE gone text[]; BEGIN
    IF before > now() - interval '1 year' THEN RAISE EXCEPTION '% is less than a year ago', before; END IF;
    gone := ARRAY(SELECT id FROM recipients WHERE erased_at < before ORDER BY erased_at LIMIT most FOR UPDATE SKIP LOCKED);
    DELETE FROM consent_events WHERE recipient_id = ANY (gone);
    DELETE FROM recipients WHERE id = ANY (gone);
    RETURN cardinality(gone);
END $$;
REVOKE EXECUTE ON FUNCTION forget_month, forget_erased FROM PUBLIC;
"""

# The role of all processes except in migrations. Roles belong to the whole server, so it may exist already.
WORKER = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dispatcher_worker') THEN
        CREATE ROLE dispatcher_worker NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;  -- another database of this server was migrated at the same moment
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role dispatcher_worker is missing, and % may not make it', current_user
            USING HINT = format('An administrator can: CREATE ROLE dispatcher_worker; GRANT dispatcher_worker TO %I', current_user);
END $$;
DO $$ BEGIN
    IF NOT pg_has_role(current_user, 'dispatcher_worker', 'MEMBER') THEN
        EXECUTE format('GRANT dispatcher_worker TO %I', current_user);
    END IF;
END $$;
GRANT USAGE ON SCHEMA public TO dispatcher_worker;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO dispatcher_worker;
GRANT EXECUTE ON FUNCTION make_partitions, forget_month, forget_erased TO dispatcher_worker;
GRANT SELECT ON alembic_version TO dispatcher_worker;
GRANT SELECT, INSERT ON consent_events, audience_faults, policies, template_approvals TO dispatcher_worker;
GRANT SELECT, INSERT, UPDATE ON
    recipients, suppressions, campaigns, triggers, chunks, jobs, messages, provider_events, inbound_texts TO dispatcher_worker;
GRANT SELECT, INSERT, DELETE ON channel_stops, cap_reservations TO dispatcher_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON doubts, misses, conversations, alerts TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
