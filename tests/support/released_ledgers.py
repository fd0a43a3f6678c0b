"""Ledgers as they were at each released revision of the schema, filled with data."""

from __future__ import annotations

from pathlib import Path

import psycopg

from dispatcher.ledger.migrations import migrate

# Each revision that is on the main branch, and the SHA-256 of its file. A schema is never edited in place: ledgers that have the
# revision would never get the change. Write a new revision, and add its line when it is finished.
RELEASED = {
    "0001_ledger.py": "42baa23bfd62ff338757cf310b6aafe59d6c876b1e64f84342ac0348bd1464f0",
    "0002_claim_numbers.py": "09c5edab1dc039230cbc7d809ef7a34db4b9400ebca1d37df83cf5bbd7adf659",
    "0003_time_and_ends.py": "485e4c264ca8594931dd9a4a267cb0dd69b1cc1749817c1099ede815220be8db",
    "0004_retries.py": "4d5fe53274e066b77456a60fa90d15fcc7e45a3455a7c2abc5ea98317254af20",
    "0005_repeats.py": "2d342945434d72c4e91fa9a6d2d0853a44cf1c63bf5beabd3a6b1b813473b3ea",
    "0006_template_versions.py": "3ac627d999880659e3476b49e2a78493a4aea52dbd7e0640fc7c66711ef5c185",
    "0007_keys_and_policy.py": "69e74b1ef36433629d72a116fc29e0d4f87715309b556d9c132fc096d9a80e74",
    "0008_loads.py": "8acc853def5fe0c3a8bbb2020cc9bc1bee70c1f4daf5e4d50a9a469674011fe9",
    "0009_unread_and_unmatched.py": "a457e8121ad2cf1fc4606f658ad172e6c47fd0ad0781021918b156851ff22dec",
    "0010_one_per_address.py": "1003baa347155a4018966fa372de3e6068de3b6a6f498ead66be6c42d879dd04",
    "0011_refused_jobs.py": "0d7bea6c4f0beaa0b2ee4b520c40eb75a32b42413c80cfae1ef839a6ef5e655a",
    "0012_roles_and_sessions.py": "f1cb47c9ccc7eef1994532bf58ff8129bffb3664494bbc9ec3da4c5152f88d18",
    "0013_outbox.py": "a414965c4467f7ecd7006b58ef18673d70428f15e09678b8c69ff256b1ef016e",
    "0015_event_endpoints.py": "23fb958e4ac0770634da9eadd414e5b2114c5398c1b236b1dded4683c6024e27",
    "0016_suppression_lists.py": "db0fbdfa41b54436d4ae078328d30882a730c82fba01103d7332ef00b9823069",
    "0018_test_sends.py": "8b21c7e9a986d8480420ff3c717e483e4a14f983ffccf342ec25be901f717fe6",
    "0019_whatsapp_templates.py": "b6870f67a311120adb85929b05947721f11437012f28692db7391d7ac85be3c8",
    "0020_campaign_edits.py": "e49916cf5537d64c308b47300f57a332349dba0ef58072aa5d570f6395c2daab",
    "0021_event_sinks.py": "6c78d31498b8450d2f4b1eef267144bad24b4e7623d03a5521b785c1fae9f9ce",
    "0023_schedules.py": "0efc7840908d38c3c3963bb7d5f7a6730e69aacaa1997c8e76b1d8a61253fffe",
    "0024_dead_letters.py": "10fe70ff6c9489988779e1fb1f96a6764308a8734535a1b013fef755749e53fa",
    "0026_line_uploads.py": "6d77fb2cb71c36666af9fdf2a6839df1c84398f20c21f752f4a323a41592098f",
    "0027_line_upload_hashes.py": "1aa50b154b81f8a6b64cccab5caf952d4aee46067b58988cc51392810694530d",
    "0028_heartbeats.py": "92bb9e8c68c66784d4da4a7b1dd1ab7097f7dd8120590642a279474d05d4396c",
    "0029_identity.py": "579698b20a7f1d0a6b6d4a81d9350da214f3b374eafb82c35668fe6beea4316a",
    "0030_audit_log.py": "212ef503db09535d6d8562f1f7c6795d1a40f634ae3d6ce0db0f152a2ac31898",
    "0031_contract_versions.py": "f74c2c6fd33c2cffcbca24db012f34e99b49d858b5a5fa83788ec32297712115",
    "0032_erasure_requests.py": "a731e991a6ff477c6f2bff0de1e9b56fd2e8a0263a7e173df8be72a1908d4a32",
    "0033_campaign_drafts.py": "4f6acded30c0dca38f83c0abf2f3adcb7fdd68acd74fc79f3694fc5bca433c64",
    "0034_standing_alerts.py": "1c33a73a1a3a2fefea0df7a7ffca22a1900df0b6c1314b24498b7f53224e2bca",
    "0035_ledger_generations.py": "79e09d9059b66c053b72a757a33066c43e637a579fd6d46882e530e1c0ea017b",
    "0037_access.py": "3e1b0b3ef6c475c59b03421e9a1e46578a3d5e953350db70e743433829d718c9",
    "0038_conversions.py": "77644719ad944edea4f6a76a65d357e0255cc7c17fbbe16e3f67df6af19079cc",
    "0039_schema_compatibility.py": "2789508903ac63f7c182724302152debc9a1f27350fb580c741a7627cd86589c",
    "0040_reading_habits.py": "a72eb2524014ba4c513bf6850e0bb69498b83dba84ef819079acf5b03514dbe2",
    "0043_load_samples.py": "ee92bc2f8b77d446228c56d7b6c7a44662039b0ec2f182835f8e989ea425e7de",
    "0044_canaries.py": "acd7c8179ebccf9b2592adc11b0ea563fe6ae9421c5315a3d45782e509ccfd8e",
    "0045_campaign_dry_runs.py": "d11d2e5768cb3a137454fe72002dbd6ef036757fde7b83bed57e52913a828561",
}

# Rows of every table as the program wrote them at that revision; 0001.sql also has specs without the keys that came later. A
# revision that adds tables gets a file of its own, which is run after those of the revisions before it.
LEDGERS = Path(__file__).parents[1] / "integration" / "ledgers"


def fill_ledger(url: str, revision: str) -> None:
    """Create a ledger as it was at this revision, with rows in each of its tables."""
    for step in sorted(name[:4] for name in RELEASED if name[:4] <= revision):
        migrate(url, step)
        rows = LEDGERS / f"{step}.sql"
        if rows.exists():
            with psycopg.connect(url) as owner:
                owner.execute(rows.read_bytes())
    with psycopg.connect(url) as owner:
        tables = owner.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        empty = [name for (name,) in tables if owner.execute(f'SELECT FROM "{name}" LIMIT 1').rowcount == 0]
    assert not empty, f"no rows in {LEDGERS} for these tables of {revision}"
