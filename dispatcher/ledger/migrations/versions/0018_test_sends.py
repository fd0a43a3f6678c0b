"""Test sends: templates sent to named testers. Approvals with comments, of two people, and with an end."""

from alembic import op

revision = "0018"
down_revision = "0016"

SCHEMA = """
CREATE TABLE test_sends (                       -- one per message to a tester
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    template text NOT NULL,
    digest text NOT NULL,                       -- of the version that was sent
    tester text NOT NULL,                       -- a name from [testers] of the policy
    channel text NOT NULL,
    language text NOT NULL,
    mode text NOT NULL,
    actor text NOT NULL,                        -- who sent it
    campaign_no bigint,                         -- it is a seed of this campaign
    at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'sending',      -- it stays there if the process that sends is lost
    code text,                                  -- of the provider's refusal, or of its event
    provider text,
    receipt text,
    settled_at timestamptz
);
CREATE INDEX test_sends_by_template ON test_sends (template, no);
CREATE UNIQUE INDEX test_sends_of_campaign ON test_sends (campaign_no, template, tester, channel, language, mode)
    WHERE campaign_no IS NOT NULL;              -- a seed is sent once
GRANT SELECT, INSERT, UPDATE ON test_sends TO dispatcher_worker;

ALTER TABLE template_approvals ADD COLUMN comment text NOT NULL DEFAULT '';
ALTER TABLE template_approvals ADD COLUMN first_actor text;  -- who approved it first, where the policy asks for two people

CREATE TABLE template_first_approvals (         -- by the first of two people; no version may be sent because of such a row alone
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    template text NOT NULL,
    digest text NOT NULL,
    actor text NOT NULL,
    comment text NOT NULL,
    at timestamptz NOT NULL,
    after_no bigint NOT NULL                    -- the newest row of template_approvals for the digest; a newer one ends this
);
CREATE INDEX template_first_approvals_by_digest ON template_first_approvals (digest, no);
CREATE TRIGGER template_first_approvals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON template_first_approvals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();
GRANT SELECT, INSERT ON template_first_approvals TO dispatcher_worker;

-- End an approval that is older than the policy allows. A worker has no right to withdraw one in general.
CREATE FUNCTION expire_approval(of_digest text, before timestamptz, at_time timestamptz) RETURNS SETOF bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS
$$  INSERT INTO template_approvals (template, version, digest, approved, actor, at, comment)
    SELECT a.template, a.version, a.digest, false, 'policy', at_time, 'expired: four_eyes.approval_days'
    FROM (SELECT * FROM template_approvals WHERE digest = of_digest ORDER BY no DESC LIMIT 1) a
    WHERE a.approved AND a.at < before
    RETURNING no $$;
REVOKE EXECUTE ON FUNCTION expire_approval FROM PUBLIC;
GRANT EXECUTE ON FUNCTION expire_approval TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
