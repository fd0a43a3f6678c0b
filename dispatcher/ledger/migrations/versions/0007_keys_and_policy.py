"""Fingerprints of the secret keys, keys of addresses under former keys, and the policy in force."""

from alembic import op

revision = "0007"
down_revision = "0005"

SCHEMA = """
-- Every key that this ledger was written with; never the key itself. The newest row is the key that writes.
CREATE TABLE secret_keys (
    no smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint bytea NOT NULL UNIQUE,          -- keyed hash of a constant
    introduced_at timestamptz NOT NULL,
    rekeyed_to text,                            -- the recipient up to whom the background command has come
    rekeyed bigint NOT NULL DEFAULT 0,          -- how many recipients that are
    rekeyed_at timestamptz                      -- when it had come to the end
);

-- An address that has a key of the newest secret key, and its keys under the former ones: who knows only an old key, such as that
-- of a message, finds the new one here.
CREATE TABLE address_aliases (
    old_key bytea PRIMARY KEY,
    new_key bytea NOT NULL
);
CREATE INDEX suppressions_by_address_key ON suppressions (address_key);
CREATE INDEX inbound_texts_by_address_key ON inbound_texts (address_key);

CREATE TABLE policies_in_force (                -- who put which policy in force; the newest row counts
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest text NOT NULL REFERENCES policies (digest),
    actor text NOT NULL,
    at timestamptz NOT NULL
);
CREATE TRIGGER policies_in_force_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON policies_in_force
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();
"""

WORKER = """
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO dispatcher_worker;
GRANT SELECT, INSERT, UPDATE ON secret_keys, address_aliases TO dispatcher_worker;
GRANT SELECT, INSERT ON policies_in_force TO dispatcher_worker;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(WORKER)
