"""Consent events are permanent, show tampering, count in the right order, and stop messages that are not sent yet."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from channels.base import Channel
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.errors import UnknownRecipient, VersionConflict
from dispatcher.domain.preferences import DEFAULTS, SWITCHES, VALUES, BadChoice, Change, changes, resolve_changes
from dispatcher.domain.recipient import Choice, Device
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent import erasure, events, recipients, suppressions
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.consent.hash_chain import START, event_hash, seal
from dispatcher.ledger.consent.recipients import Recipient
from dispatcher.ledger.keyed_hash import address_key
from dispatcher.ledger.partitions import ensure_period

SECRET = KeyRing.of(b"a secret of the tests")
NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)

MARIE = Recipient(
    "c-1",
    "customer",
    "fr",
    email="marie@example.com",
    phone="+32470123456",
    whatsapp="+32470123456",
    devices=(Device("token-1", "ios", True), Device("token-2", "android", True)),
    profile={"identity": {"first_name": "Marie"}},
)


@pytest.fixture
def ledger(database: str) -> Iterator[Connection]:
    """A ledger with Marie (c-1) and Jan (c-2), who have made no choices yet."""
    with psycopg.connect(database, autocommit=True) as connection:
        jan = replace(MARIE, id="c-2", email="jan@example.com", phone="+32470123457", whatsapp=None)
        recipients.upsert(connection, SECRET, [MARIE, jan], "test", NOW)
        yield connection


def say(ledger: Connection, *said: tuple[str, str], at: datetime = NOW, source: str = "mobile") -> events.RecordResult:
    """Marie makes a choice, which is recorded at that moment."""
    asked = [Change(subject, value) for subject, value in said]
    return events.record(ledger, SECRET, ConsentStatement("c-1", tuple(asked), at), Provenance(source, "app", "v1"), at)


def values(ledger: Connection, recipient_id: str = "c-1") -> dict[str, str]:
    return {subject: choice.value for subject, choice in events.preferences(ledger, recipient_id).choices.items()}


# -- what counts -------------------------------------------------------------------------------------------------------


def test_first_events_of_new_people_are_those_of_recorded_choices(ledger: Connection) -> None:
    """Written without an object for each, they must be what `record_all` writes: hashes, choices, version, seal."""
    chosen = (Change("offer:own", "tailored"), Change("channel:email", "off"), Change("objection:profiling", "on"))
    added = replace(MARIE, id="c-7", changes=chosen)
    recipients.upsert(ledger, SECRET, [added, replace(MARIE, id="c-8")], 'a "clerk"\\ of\tthe bank, é', NOW)
    events.record_all(
        ledger, SECRET, [ConsentStatement("c-8", chosen, None)], Provenance("import", 'a "clerk"\\ of\tthe bank, é'), NOW
    )
    shown = [
        ledger.execute(
            "SELECT version, consent_seq, array(SELECT (subject, old_value, new_value, source, actor, wording, said_at)"
            " FROM consent_events e WHERE e.recipient_id = r.id ORDER BY seq)::text,"
            " (SELECT jsonb_object_agg(key, value - 'event') FROM jsonb_each(choices)) FROM recipients r WHERE id = %s",
            (who,),
        ).fetchone()
        for who in ("c-7", "c-8")
    ]
    assert shown[0] == shown[1]
    assert events.verify(ledger, SECRET) == []


def test_each_choice_is_an_event_with_its_proof(ledger: Connection) -> None:
    said_at = NOW - HOUR
    asked = [Change("offer:own", "standard")]
    events.record(ledger, SECRET, ConsentStatement("c-1", tuple(asked), said_at), Provenance("branch", "desk-7", "wording-3"), NOW)
    say(ledger, ("offer:own", "none"), at=NOW + HOUR)
    first, second = events.history(ledger, "c-1")
    assert (first.seq, first.old_value, first.new_value, first.source) == (1, None, "standard", "branch")
    assert (first.actor, first.wording, first.said_at, first.recorded_at) == ("desk-7", "wording-3", said_at, NOW)
    assert (second.seq, second.old_value, second.new_value) == (2, "standard", "none")
    standing = events.preferences(ledger, "c-1").choices["offer:own"]
    assert standing == Choice("none", f"consent:{second.no}", "mobile", NOW + HOUR)


def test_accepting_tailored_switches_all_channels_on_but_those_named(ledger: Connection) -> None:
    say(ledger, ("offer:own", "tailored"), ("channel:push", "off"))
    assert values(ledger) == {
        "offer:own": "tailored",
        "channel:push": "off",
        "channel:email": "on",
        "channel:sms_whatsapp": "on",
    }
    say(ledger, ("channel:email", "off"), at=NOW + HOUR)
    say(ledger, ("offer:own", "tailored"), at=NOW + 2 * HOUR)  # accepted before: nothing new, the switch stays off
    assert values(ledger)["channel:email"] == "off"
    say(ledger, ("offer:kate", "tailored"), at=NOW + 3 * HOUR)
    assert values(ledger)["channel:email"] == values(ledger)["channel:push"] == "on"


def test_saying_the_same_again_changes_nothing(ledger: Connection) -> None:
    before = say(ledger, ("objection:marketing", "on"))
    retry_hint = say(ledger, ("objection:marketing", "on"), at=NOW + HOUR)
    assert retry_hint.events == ()
    assert retry_hint.version == before.version
    assert say(ledger, ("objection:profiling", "off"), at=NOW + HOUR).events == ()  # an objection needs a statement


def test_what_we_knew_then_is_told_by_when_it_was_recorded(ledger: Connection) -> None:
    say(ledger, ("channel:email", "on"))
    late = [Change("channel:email", "off")]
    events.record(ledger, SECRET, ConsentStatement("c-1", tuple(late), NOW + HOUR), Provenance("branch", "desk"), NOW + 3 * HOUR)
    assert events.as_of(ledger, "c-1", NOW - HOUR) == {}
    assert events.as_of(ledger, "c-1", NOW + 2 * HOUR)["channel:email"].value == "on"
    assert events.as_of(ledger, "c-1", NOW + 3 * HOUR)["channel:email"].value == "off"


def test_an_older_word_may_close_but_not_open(ledger: Connection) -> None:
    say(ledger, ("channel:email", "on"), ("channel:push", "off"), at=NOW)
    asked = [Change("channel:email", "off"), Change("channel:push", "on")]
    recorded = events.record(
        ledger, SECRET, ConsentStatement("c-1", tuple(asked), NOW - HOUR), Provenance("live", "phone"), NOW + HOUR
    )
    assert values(ledger) == {"channel:email": "off", "channel:push": "off"}
    assert recorded.superseded == (Change("channel:push", "on"),)


def test_an_import_never_opens_what_the_person_closed(ledger: Connection) -> None:
    said = changes({"own": "tailored"}, {"email": True})
    master = replace(MARIE, changes=said)
    recipients.upsert(ledger, SECRET, [master], "nightly", NOW)
    assert values(ledger)["offer:own"] == "tailored"
    say(ledger, ("offer:own", "none"), ("channel:email", "off"), at=NOW + HOUR)

    recipients.upsert(ledger, SECRET, [master], "nightly", NOW + 2 * HOUR)
    recipients.upsert(ledger, SECRET, [replace(master, said_at=NOW)], "nightly", NOW + 2 * HOUR)
    assert values(ledger)["offer:own"] == "none"
    assert values(ledger)["channel:email"] == "off"

    recipients.upsert(ledger, SECRET, [replace(master, said_at=NOW + 2 * HOUR)], "nightly", NOW + 3 * HOUR)
    assert values(ledger)["offer:own"] == "tailored"


choice_values = st.sampled_from([(subject, value) for subject, known in VALUES.items() for value in known])
moments = st.sampled_from([NOW - HOUR, NOW, NOW + HOUR])


@st.composite
def standings(draw: st.DrawFn) -> dict[str, Choice]:
    said = dict(draw(st.lists(choice_values, max_size=8)))
    return {
        subject: Choice(value, "consent:1", draw(st.sampled_from(["import", "mobile"])), draw(moments))
        for subject, value in said.items()
    }


@given(standings(), st.lists(choice_values, max_size=8), st.none() | moments, st.booleans())
def test_only_a_newer_word_opens_and_every_word_closes(
    current: dict[str, Choice], asked: list[tuple[str, str]], said_at: datetime | None, closed: bool
) -> None:
    ruling = resolve_changes(current, [Change(*item) for item in asked], said_at, closed)
    before = {**DEFAULTS, **{subject: choice.value for subject, choice in current.items()}}
    after = before | {change.subject: change.value for change in ruling.accepted}
    for subject, value in dict(asked).items():
        known, standing = VALUES[subject], current.get(subject)
        opens = value != known[0] and (subject not in before or known.index(value) > known.index(before[subject]))
        overrules = standing and (standing.source != "import" if said_at is None else standing.at > said_at)
        if opens and (closed or overrules):
            assert after.get(subject) == before.get(subject)
            assert Change(subject, value) in ruling.superseded
        else:
            assert after[subject] == value
    unasked = [change for change in ruling.accepted if change.subject not in dict(asked)]
    assert all(change.subject in SWITCHES and change.value == "on" for change in unasked)
    assert not unasked or any(change.value == "tailored" for change in ruling.accepted)


# -- the order, and faults ---------------------------------------------------------------------------------------------


def test_a_no_waits_for_the_claim_that_came_first(ledger: Connection, database: str) -> None:
    with psycopg.connect(database) as claiming:
        claiming.execute("SELECT version FROM recipients WHERE id = 'c-1' FOR SHARE")
        ledger.execute("SET lock_timeout = '20ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            say(ledger, ("channel:email", "off"))
    before = events.preferences(ledger, "c-1").version
    assert say(ledger, ("channel:email", "off")).version == before + 1  # the gate sees this, and decides again


def test_words_that_come_together_are_chained_one_after_the_other(ledger: Connection, database: str) -> None:
    with ThreadPoolExecutor(1) as other, psycopg.connect(database, autocommit=True) as second:
        with ledger.transaction():
            say(ledger, ("channel:email", "off"))
            waiting = other.submit(say, second, ("channel:email", "on"), at=NOW + HOUR)
            while not ledger.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                assert not waiting.done()
        waiting.result()
    assert [(event.seq, event.old_value) for event in events.history(ledger, "c-1")] == [(1, None), (2, "off")]
    assert events.verify(ledger, SECRET) == []


def test_a_change_names_the_version_it_was_made_from(ledger: Connection) -> None:
    version = events.preferences(ledger, "c-1").version
    asked = [Change("channel:email", "on")]
    events.record(
        ledger, SECRET, ConsentStatement("c-1", tuple(asked), NOW), Provenance("touch", "web"), NOW, expected_version=version
    )
    with pytest.raises(VersionConflict) as conflict:
        events.record(
            ledger,
            SECRET,
            ConsentStatement("c-1", tuple(asked), NOW),
            Provenance("touch", "web"),
            NOW,
            expected_version=version,
        )
    assert conflict.value.current == version + 1


def test_impossible_choices_are_refused(ledger: Connection) -> None:
    with pytest.raises(BadChoice, match="did you mean offer:partner"):
        changes({"partners": "tailored"})
    with pytest.raises(BadChoice, match="none, standard, tailored"):
        changes({"own": "on"})
    with pytest.raises(BadChoice, match="future"):
        events.record(ledger, SECRET, ConsentStatement("c-1", (), NOW + HOUR), Provenance("live", "x"), NOW)
    with pytest.raises(UnknownRecipient):
        events.record(ledger, SECRET, ConsentStatement("nobody", (), NOW), Provenance("live", "x"), NOW)


def test_many_words_at_once_leave_what_each_alone_would(ledger: Connection) -> None:
    words = [ConsentStatement("c-2", changes({"own": "tailored"}), NOW), ConsentStatement("c-1", changes({"kate": "none"}), NOW)]
    results = events.record_all(
        ledger, SECRET, [*words, ConsentStatement("nobody", words[0].changes)], Provenance("import", "x"), NOW
    )
    assert results.keys() == {"c-1", "c-2"}
    assert values(ledger, "c-1") == {"offer:kate": "none"}
    assert values(ledger, "c-2") == {"offer:own": "tailored", **dict.fromkeys(SWITCHES, "on")}
    assert [event.seq for event in events.history(ledger, "c-2")] == [1, 2, 3, 4]
    assert events.verify(ledger, SECRET) == []


# -- tampering ---------------------------------------------------------------------------------------------------------


def test_events_can_not_be_rewritten(ledger: Connection) -> None:
    say(ledger, ("channel:email", "off"))
    for statement in ("UPDATE consent_events SET actor = 'x'", "DELETE FROM consent_events", "TRUNCATE consent_events"):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            ledger.execute(statement.encode())


def edit(what: str, seq: int) -> str:
    return f"UPDATE consent_events SET {what} WHERE recipient_id = %(who)s AND seq = {seq}"  # noqa: S608 - what a thief would do


def drop(seq: int) -> str:
    return f"DELETE FROM consent_events WHERE recipient_id = %(who)s AND seq = {seq}"  # noqa: S608


ADD = """
INSERT INTO consent_events (recipient_id, seq, subject, new_value, source, actor, said_at, recorded_at, previous_hash, hash)
SELECT recipient_id, 4, subject, 'on', source, actor, said_at, recorded_at, hash, hash FROM consent_events
WHERE recipient_id = %(who)s AND seq = 3
"""
# A row that continues the rest of the chain, as well as is possible without the key.
SHORTENED = """
UPDATE recipients SET (consent_seq, consent_head, choices) = (
    SELECT count(*), (array_agg(hash ORDER BY seq DESC))[1], coalesce(jsonb_object_agg(subject, jsonb_build_object(
        'value', new_value, 'event', 'consent:' || no, 'source', source, 'at', to_jsonb(said_at)) ORDER BY seq), '{}')
    FROM consent_events WHERE recipient_id = %(who)s) WHERE id = %(who)s
"""
TAMPERINGS = [
    *(
        edit(f"{column} = {column} || 'x'", 2)
        for column in ("subject", "new_value", "source", "actor", "wording", "contract_version")
    ),
    edit("old_value = 'x'", 2),
    edit("said_at = said_at - interval '1 microsecond'", 2),
    edit("recorded_at = recorded_at - interval '1 day'", 3),
    edit("no = DEFAULT", 2),
    edit("seq = 4", 3),
    edit("hash = previous_hash", 3),
    edit("previous_hash = hash", 2),
    edit("recipient_id = 'nobody'", 1),
    "; ".join((edit("seq = 9", 1), edit("seq = 1", 2), edit("seq = 2", 9))),
    *(drop(seq) for seq in (1, 2, 3)),
    "; ".join((drop(3), "UPDATE recipients SET consent_seq = 2 WHERE id = %(who)s")),
    "; ".join((*map(drop, (1, 2, 3)), "UPDATE recipients SET consent_seq = 0, consent_head = NULL WHERE id = %(who)s")),
    "; ".join((ADD, "UPDATE recipients SET consent_seq = 4 WHERE id = %(who)s")),
    "UPDATE recipients SET choices = jsonb_set(choices, '{channel:email,value}', '\"on\"') WHERE id = %(who)s",
    "UPDATE recipients SET choices = choices - 'channel:push' WHERE id = %(who)s",
    "UPDATE recipients SET consent_seq = 2 WHERE id = %(who)s",
    "UPDATE recipients SET consent_head = '' WHERE id = %(who)s",
    "UPDATE recipients SET consent_seal = '' WHERE id = %(who)s",
    f"{drop(3)}; {SHORTENED}",
    f"{drop(3)}; {drop(2)}; {SHORTENED}",
    f"{drop(3)}; {drop(2)}; {drop(1)}; {SHORTENED}",
    "DELETE FROM recipients WHERE id = %(who)s",
]


def test_the_chain_shows_every_kind_of_tampering(ledger: Connection, database: str) -> None:
    people = [f"t-{number}" for number in range(len(TAMPERINGS) + 1)]
    recipients.upsert(ledger, SECRET, [replace(MARIE, id=who) for who in people], "test", NOW)
    for hours, said in enumerate(({"email": True}, {"push": True}, {"email": False})):
        words = [ConsentStatement(who, changes(channels=said), NOW + hours * HOUR) for who in people]
        events.record_all(ledger, SECRET, words, Provenance("mobile", "app"), NOW + hours * HOUR)
    assert events.verify(ledger, SECRET) == []
    ledger.execute("ALTER TABLE consent_events DISABLE TRIGGER ALL")
    with psycopg.connect(database, autocommit=True, cursor_factory=psycopg.ClientCursor) as tampering:
        for who, statement in zip(people, TAMPERINGS, strict=False):
            tampering.execute(statement.encode(), {"who": who})
    found = events.verify(ledger, SECRET)
    assert set(people) - {broken.recipient_id for broken in found} == {people[-1]}  # whose chain is intact
    assert events.ChainBreak(people[TAMPERINGS.index(drop(2))], 2, "missing") in found


def test_a_true_event_in_another_history_shows(ledger: Connection) -> None:
    say(ledger, ("channel:email", "on"))
    say(ledger, ("channel:push", "on"), at=NOW + HOUR)
    _, second = events.history(ledger, "c-1")
    fork = event_hash(SECRET.newest, second, START)  # as if from a copy in which something else came first
    ledger.execute("ALTER TABLE consent_events DISABLE TRIGGER ALL")
    ledger.execute("UPDATE consent_events SET previous_hash = %s, hash = %s WHERE no = %s", (START, fork, second.no))
    ledger.execute(
        "UPDATE recipients SET consent_head = %s, consent_seal = %s WHERE id = 'c-1'", (fork, seal(SECRET.newest, "c-1", 2, fork))
    )
    assert events.verify(ledger, SECRET) == [events.ChainBreak("c-1", 2, "does not follow the event before it")]


def test_the_chain_is_keyed(ledger: Connection) -> None:
    say(ledger, ("channel:email", "on"))
    assert events.ChainBreak("c-1", 1, "changed") in events.verify(ledger, KeyRing.of(b"another secret"))


# -- what has not left -------------------------------------------------------------------------------------------------

PERIOD = 202611
SPECS: Mapping[str, dict[str, Any]] = {
    "own": {"kind": "commercial", "offer_type": "own"},
    "partner": {"kind": "commercial", "offer_type": "partner"},
    "service": {"kind": "service", "offer_type": None},
}
PARKED = [
    (offer, channel, state)
    for offer in SPECS
    for channel in ("email", "sms", "whatsapp", "push", None)
    for state in ("pending", "held", "waiting")
]


def park(ledger: Connection, recipient_id: str, state: str | None = None) -> None:
    """Park a message of each offer, channel and state (or in `state`, if given) for a person; the partner's is a trigger."""
    ensure_period(ledger, PERIOD)
    ledger.execute(
        "INSERT INTO triggers (key, digest, period, chunk, spec) VALUES ('key', '', %s, 7, %s) ON CONFLICT DO NOTHING",
        (PERIOD, Jsonb(SPECS["partner"])),
    )
    for name in ("own", "service"):
        ledger.execute(
            "INSERT INTO campaigns (id, period, state, spec, digest, created_at) VALUES (%s, %s, 'running', %s, '', %s)"
            " ON CONFLICT DO NOTHING",
            (name, PERIOD, Jsonb(SPECS[name]), NOW),
        )
    start = ledger.execute("SELECT coalesce(max(row) + 1, 0) FROM messages").fetchone() or (0,)
    ledger.execute(
        "INSERT INTO messages (period, chunk, row, campaign_no, until, updated_at, recipient_id, channel, state, decision)"
        " SELECT %s, 7, %s + place, campaigns.no, %s, %s, %s, channel, parked.state,"
        " jsonb_build_object('offer', offer, 'was', parked.state)"
        " FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY AS parked (offer, channel, state, place)"
        " LEFT JOIN campaigns ON campaigns.id = offer",
        (
            *(PERIOD, start[0], NOW + HOUR, NOW, recipient_id),
            *([offer for offer, _, _ in PARKED], [channel for _, channel, _ in PARKED], [state or was for *_, was in PARKED]),
        ),
    )


def refused(ledger: Connection, recipient_id: str) -> set[tuple[str, str | None, str]]:
    """A person's refused messages as (offer, channel, state when parked)."""
    rows = ledger.execute(
        "SELECT decision ->> 'offer', channel, decision ->> 'was' FROM messages"
        " WHERE state = 'refused' AND until IS NULL AND updated_at > %s AND decision #>> '{stopped,code}' = reason"
        " AND recipient_id = %s",
        (NOW, recipient_id),
    )
    return {(offer, channel, was) for offer, channel, was in rows}


def reasons(ledger: Connection, recipient_id: str) -> set[tuple[str, str]]:
    """The reasons and proofs that a person's stopped messages carry."""
    rows = ledger.execute(
        "SELECT reason, decision #>> '{stopped,evidence}' FROM messages WHERE recipient_id = %s AND reason IS NOT NULL",
        (recipient_id,),
    )
    return {(reason, evidence) for reason, evidence in rows}


COMMERCIAL = {item for item in PARKED if item[0] != "service"}
STOPS: list[tuple[list[tuple[str, str]], str | None, set[tuple[str, str | None, str]]]] = [
    ([("channel:email", "off")], "channel_off", {item for item in COMMERCIAL if item[1] == "email"}),
    ([("channel:push", "off")], "channel_off", {item for item in COMMERCIAL if item[1] == "push"}),
    ([("channel:sms_whatsapp", "off")], "channel_off", {item for item in COMMERCIAL if item[1] in ("sms", "whatsapp")}),
    ([(switch, "off") for switch in SWITCHES], "channel_off", COMMERCIAL),
    ([("offer:own", "none")], "choice_none", {item for item in COMMERCIAL if item[0] == "own"}),
    ([("offer:partner", "none")], "choice_none", {item for item in COMMERCIAL if item[0] == "partner"}),
    ([("offer:kate", "none")], None, set()),
    ([("objection:marketing", "on")], "objected", COMMERCIAL),
    ([("objection:marketing", "on"), ("channel:email", "off"), ("offer:own", "none")], "objected", COMMERCIAL),
    ([("objection:profiling", "on")], None, set()),
    ([("offer:own", "standard")], None, set()),
    ([("channel:email", "on")], None, set()),
]


def test_a_no_stops_what_is_parked_in_its_scope_and_nothing_else(ledger: Connection) -> None:
    people = [f"p-{number}" for number in range(len(STOPS))]
    everything = changes(dict.fromkeys(("own", "partner", "kate"), "tailored"))
    recipients.upsert(ledger, SECRET, [replace(MARIE, id=who, changes=everything) for who in people], "test", NOW)
    for who in people:
        park(ledger, who)
    for who, (said, reason, scope) in zip(people, STOPS, strict=True):
        assert refused(ledger, who) == set()
        asked = [Change(*item) for item in said]
        recorded = events.record(
            ledger, SECRET, ConsentStatement(who, tuple(asked), NOW + HOUR), Provenance("mobile", "app"), NOW + HOUR
        )
        assert refused(ledger, who) == scope, said
        assert {code for code, _ in reasons(ledger, who)} == ({reason} if reason else set())
        assert {proof for _, proof in reasons(ledger, who)} <= {event.evidence for event in recorded.events}


def test_what_has_left_is_left_alone(ledger: Connection) -> None:
    for state in ("claimed", "accepted", "unresolved", "failed"):
        park(ledger, "c-1", state)
    say(ledger, ("objection:marketing", "on"), at=NOW + HOUR)
    assert refused(ledger, "c-1") == set()


def test_the_first_opt_out_of_a_new_person_refuses_what_waits(ledger: Connection) -> None:
    park(ledger, "c-30")
    added = replace(MARIE, id="c-30", changes=(Change("objection:marketing", "on"),))
    recipients.upsert(ledger, SECRET, [added], "nightly", NOW + HOUR)
    park(ledger, "c-31")
    recipients.upsert(ledger, SECRET, [replace(MARIE, id="c-31")], "nightly", NOW + HOUR)
    events.record(ledger, SECRET, ConsentStatement("c-31", added.changes, NOW), Provenance("import", "nightly"), NOW + HOUR)
    assert refused(ledger, "c-30") == refused(ledger, "c-31") != set()


def test_a_person_whom_two_imports_add_at_once_has_one_chain(ledger: Connection, database: str) -> None:
    """The second import takes the person for new, waits for the first, and then records its choices after the first one's."""
    first, second = ((Change("offer:own", value),) for value in ("tailored", "none"))
    with psycopg.connect(database, autocommit=True) as other, ThreadPoolExecutor() as pool:
        with other.transaction():
            recipients.upsert(other, SECRET, [replace(MARIE, id="c-40", changes=first)], "one", NOW)
            late = pool.submit(recipients.upsert, ledger, SECRET, [replace(MARIE, id="c-40", changes=second)], "two", NOW)
            while not other.execute("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'").rowcount:
                time.sleep(0.01)
        assert late.result().changed == {"c-40"}
    assert [event.new_value for event in events.history(ledger, "c-40") if event.subject == "offer:own"] == ["tailored", "none"]
    assert events.verify(ledger, SECRET) == []


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_a_ban_on_an_address_stops_its_channel_for_whoever_has_it(ledger: Connection) -> None:
    park(ledger, "c-1")
    park(ledger, "c-2")
    key = address_key(SECRET, "whatsapp", "+32470123456")
    before = events.preferences(ledger, "c-1").version, events.preferences(ledger, "c-2").version
    no = suppressions.suppress(ledger, Channel.WHATSAPP, key, "63016", "twilio", NOW + HOUR)
    assert refused(ledger, "c-1") == {item for item in PARKED if item[1] == "whatsapp"}  # service messages too
    assert refused(ledger, "c-2") == set()
    assert reasons(ledger, "c-1") == {("suppressed", f"suppression:{no}")}
    versions = events.preferences(ledger, "c-1").version, events.preferences(ledger, "c-2").version
    assert versions == (before[0] + 1, before[1])
    assert suppressions.suppress(ledger, Channel.WHATSAPP, key, "other", "twilio", NOW + 2 * HOUR) == no
    assert events.preferences(ledger, "c-1").version == versions[0]


def test_bans_are_answered_in_the_order_asked(ledger: Connection) -> None:
    keys = [address_key(SECRET, "email", f"{name}@example.com") for name in ("z", "a", "z", "m")]
    bans = [suppressions.Suppression(Channel.EMAIL, key, "bounce", "sendgrid") for key in keys]
    numbers = suppressions.suppress_all(ledger, bans, NOW)
    assert numbers[0] == numbers[2]
    assert numbers == [suppressions.suppress(ledger, Channel.EMAIL, key, "", "", NOW) for key in keys]


def test_a_ban_outlives_erasure_and_meets_the_address_again(ledger: Connection) -> None:
    suppressions.suppress(ledger, Channel.EMAIL, address_key(SECRET, "email", "Marie@example.com"), "bounce", "sendgrid", NOW)
    erasure.erase(ledger, SECRET, "c-1", "test", NOW)
    assert recipients.show(ledger, "c-1")["suppressions"] == []
    recipients.upsert(ledger, SECRET, [replace(MARIE, id="c-9")], "test", NOW)
    assert [ban["channel"] for ban in recipients.show(ledger, "c-9")["suppressions"]] == ["email"]


def test_a_lifted_ban_may_come_again(ledger: Connection) -> None:
    key = address_key(SECRET, "sms", "+32470123456")
    first = suppressions.suppress(ledger, Channel.SMS, key, "21610", "twilio", NOW)
    assert not suppressions.lift(ledger, (Channel.WHATSAPP, key), {"21610"}, NOW, NOW)
    assert not suppressions.lift(ledger, (Channel.SMS, key), {"stop"}, NOW, NOW)
    assert not suppressions.lift(ledger, (Channel.SMS, key), {"21610"}, NOW - HOUR, NOW)
    before = events.preferences(ledger, "c-1").version
    assert suppressions.lift(ledger, (Channel.SMS, key), {"21610"}, NOW, NOW)
    assert events.preferences(ledger, "c-1").version == before + 1
    assert not suppressions.lift(ledger, (Channel.SMS, key), {"21610"}, NOW, NOW)
    assert suppressions.suppress(ledger, Channel.SMS, key, "21610", "twilio", NOW) != first


def test_a_dead_device_goes_alone(ledger: Connection) -> None:
    assert suppressions.drop_device(ledger, "c-1", "token-1", NOW)
    assert not suppressions.drop_device(ledger, "c-1", "token-1", NOW)
    assert [device["token"] for device in recipients.show(ledger, "c-1")["push"]] == ["token-2"]
    assert suppressions.drop_device(ledger, "c-1", "token-2", NOW)
    assert recipients.show(ledger, "c-1")["push"] == []
    assert len(recipients.show(ledger, "c-2")["push"]) == 2


# -- erasure -----------------------------------------------------------------------------------------------------------


def test_erasure_leaves_decisions_and_proof_but_no_person(ledger: Connection) -> None:
    say(ledger, ("offer:own", "tailored"))
    park(ledger, "c-1")
    ledger.execute(
        "INSERT INTO jobs (period, chunk, row, recipient_id, data) VALUES (%s, 7, 0, 'c-1', '{\"first_name\": \"Marie\"}')",
        (PERIOD,),
    )
    assert "Marie" in str(recipients.export(ledger, "c-1")["jobs"])
    assert erasure.erase(ledger, SECRET, "c-1", "desk", NOW + HOUR)
    assert not erasure.erase(ledger, SECRET, "c-1", "desk", NOW + HOUR)
    left = recipients.export(ledger, "c-1")
    for trace in ("marie", "Marie", "32470123456", "token-1"):
        assert trace not in str(left)
    assert left["offers"] == {"own": "none"}
    assert len(left["messages"]) == len(PARKED)
    assert refused(ledger, "c-1") == set(PARKED)
    assert {message["reason"] for message in left["messages"]} == {"erased"}
    assert events.verify(ledger, SECRET) == []


def test_an_erased_person_is_not_brought_back_by_the_nightly_file(ledger: Connection) -> None:
    master = replace(MARIE, changes=changes({"own": "tailored"}))
    recipients.upsert(ledger, SECRET, [master], "nightly", NOW)
    erasure.erase(ledger, SECRET, "c-1", "desk", NOW + HOUR)
    assert recipients.upsert(ledger, SECRET, [master], "nightly", NOW + 2 * HOUR).erased == {"c-1"}
    assert say(ledger, ("channel:push", "on"), ("channel:email", "off"), at=NOW + 2 * HOUR).events[0].new_value == "off"
    assert "email" not in recipients.show(ledger, "c-1")

    later = replace(master, said_at=NOW + 2 * HOUR)
    assert recipients.upsert(ledger, SECRET, [later], "nightly", NOW + 3 * HOUR).changed == {"c-1"}
    assert values(ledger)["offer:own"] == "tailored"
    assert "erased_at" not in recipients.show(ledger, "c-1")
    assert events.verify(ledger, SECRET) == []
