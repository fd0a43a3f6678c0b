"""After a restore: read opt-outs, suppressions and erasures of the lost time back from events that left the program.

Only what restricts is read back, and only what the ledger does not have. A person who opted out and in again in that time stays
opted out: in doubt, nothing is sent. Acknowledgements are not sent again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

from channels.base import Channel
from dispatcher.domain.preferences import BadChoice, Change, restricts
from dispatcher.domain.recipient import Source
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.event_exports import CONSENT, ERASED, SUPPRESSION, ExportedEvent, event_files_in, read_events
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import events, replayed_events, suppressions
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.consent.suppressions import Suppression
from dispatcher.runtime.services import Services

BATCH_EVENTS = 1_000
OBJECTION = Change("objection:marketing", "on")


@dataclass(slots=True)
class ReplayCounts:
    """What was read, and what was new to the ledger. `erased`: people who were erased in the lost time and are here again."""

    events: int = 0
    opt_outs: int = 0
    suppressions: int = 0
    erased: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LostOptOut:
    """A choice of the lost time that restricts."""

    recipient_id: str
    change: Change
    source: str
    said_at: datetime


def replay(services: Services, path: Path, actor: str, progress: Callable[[int], None]) -> ReplayCounts:
    """Read a file, or all files of a folder, and record what the ledger lacks. Safe to repeat. Raises `BadInput`."""
    counts = ReplayCounts()
    for file in event_files_in(path):
        for batch in _batches(read_events(file)):
            with lend(services.pool) as connection, connection.transaction():
                _replay(connection, services, batch, actor, counts)
            counts.events += len(batch)
            progress(counts.events)
    return counts


def _batches(exported: Iterable[ExportedEvent]) -> Iterator[list[ExportedEvent]]:
    source = iter(exported)
    while batch := list(islice(source, BATCH_EVENTS)):
        yield batch


def _replay(connection: Connection, services: Services, batch: Sequence[ExportedEvent], actor: str, counts: ReplayCounts) -> None:
    now = services.clock()
    lost = _lost_opt_outs(connection, [event for event in batch if event.type == CONSENT], now)
    erased = [str(event.data["recipient"]) for event in batch if event.type == ERASED]
    here = replayed_events.not_erased(connection, erased)
    counts.erased += [each for each in here if each not in counts.erased]
    lost += [LostOptOut(each, OBJECTION, Source.ERASURE, now) for each in here]
    for source, statements in _by_source(lost):
        for statement in statements:
            results = events.record_all(connection, services.secret, [statement], Provenance(source, actor), now)
            counts.opt_outs += sum(len(result.events) for result in results.values())
    bans = _lost_suppressions(connection, [event for event in batch if event.type == SUPPRESSION])
    if bans:
        banned = {(ban.channel, ban.address_key) for ban in bans}
        counts.suppressions += sum(not suppressions.in_force(connection, *each) for each in banned)
        suppressions.suppress_all(connection, bans, now)


def _lost_opt_outs(connection: Connection, exported: Sequence[ExportedEvent], now: datetime) -> list[LostOptOut]:
    known = replayed_events.known_choices(connection, [_number(event, "evidence") for event in exported])
    lost = []
    for event in exported:
        data = event.data
        try:
            change, said_at = Change(data["subject"], data["new_value"]), datetime.fromisoformat(data["said_at"])
            is_known = known.get(_number(event, "evidence")) == (data["recipient"], change.subject, change.value)
            if restricts(change, data["old_value"]) and not is_known:
                lost.append(LostOptOut(data["recipient"], change, data["source"], min(said_at, now)))
        except (KeyError, TypeError, ValueError, BadChoice) as error:
            raise BadInput(InputError(event.file, event.line, "", f"is no consent event of this program: {error}")) from None
    return lost


def _by_source(lost: Sequence[LostOptOut]) -> Iterator[tuple[str, list[ConsentStatement]]]:
    """One statement for each person and source, in the order of ids, so that two replays cannot deadlock."""
    grouped: dict[tuple[str, str], list[LostOptOut]] = defaultdict(list)
    for each in lost:
        grouped[each.source, each.recipient_id].append(each)
    by_source: dict[str, list[ConsentStatement]] = defaultdict(list)
    for (source, recipient_id), choices in sorted(grouped.items(), key=lambda item: item[0][1]):
        changes = tuple(dict.fromkeys(each.change for each in choices))
        by_source[source].append(ConsentStatement(recipient_id, changes, max(each.said_at for each in choices)))
    yield from by_source.items()


def _lost_suppressions(connection: Connection, exported: Sequence[ExportedEvent]) -> list[Suppression]:
    known = replayed_events.known_suppressions(connection, [_number(event, "suppression") for event in exported])
    owners = sorted({owner for event in exported for owner in event.data.get("recipients", ())})
    keys = replayed_events.address_keys(connection, owners)
    bans = []
    for event in exported:
        data = event.data
        try:
            channel, reason, source = str(data["channel"]), str(data["reason"]), str(data["source"])
            if known.get(_number(event, "suppression")) != (channel, reason, source):
                found = [keys[owner, channel] for owner in data["recipients"] if (owner, channel) in keys]
                bans += [Suppression(Channel(channel), key, reason, source) for key in dict.fromkeys(found)]
        except (KeyError, ValueError) as error:
            raise BadInput(InputError(event.file, event.line, "", f"is no suppression event of this program: {error}")) from None
    return bans


def _number(event: ExportedEvent, name: str) -> int:
    try:
        return int(str(event.data[name]).rpartition(":")[2])
    except (KeyError, ValueError):
        raise BadInput(InputError(event.file, event.line, name, "must be an id such as consent:12")) from None
