"""Publish: number what waits in the outbox, write it as CloudEvents into the stream, chain the hashes. One process at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from opentelemetry.trace import SpanKind

from dispatcher.domain.canaries import is_canary
from dispatcher.domain.message_id import MessageId
from dispatcher.events.catalog import EventFamily, Happened, line
from dispatcher.ledger.campaigns import balance_counts
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.events import outbox, stream
from dispatcher.ledger.events.outbox import OutboxRow
from dispatcher.ledger.events.stream import Head, PublishedRow
from dispatcher.runtime.services import Services
from dispatcher.runtime.tracing import span

STEP_ROWS = 50  # of the outbox, in one transaction: 5,000 messages as a rule, 50 ms
RUN_SECONDS = 0.4  # of the second between two runs: the task that starts what is due shares the process
EVENTS_PER_ROW = 1_000  # of the stream

Origin = tuple[str, Mapping[str, Any]]  # id and spec of a campaign, or key and spec of a trigger


@dataclass(frozen=True, slots=True)
class Origins:
    """The campaigns by number, and the triggers by chunk, that changes name."""

    campaigns: Mapping[int, Origin]
    triggers: Mapping[int, Origin]

    def know(self, row: OutboxRow) -> bool:
        """Whether the origin of these messages, which are all of one chunk, is still there."""
        _, chunk, _, _, campaign_no, *_ = row.changes[0]
        return chunk in self.triggers if campaign_no is None else campaign_no in self.campaigns


def publish(services: Services, seconds_max: float = RUN_SECONDS) -> int:
    """Publish what waits, for at most about so long; returns the number of events.

    Each step is a transaction: after a crash, an event is either in the outbox or in the stream.
    """
    end = services.monotonic_clock() + seconds_max
    published, is_last = 0, False
    while not is_last and services.monotonic_clock() < end:
        with lend(services.pool) as connection:
            count, is_last = _publish_step(connection, services)
        published += count
    return published


def _publish_step(connection: Connection, services: Services) -> tuple[int, bool]:
    with connection.transaction():
        head = stream.lock(connection)
        taken = outbox.take(connection, STEP_ROWS)
        rows = _without_canaries(taken)
        origins = _origins(connection, rows)
        added = _rows(head, services.public_url, rows, origins)
        if added:
            stream.append(connection, added, services.clock())
            _trace(rows, origins)
            ids = [change[0] for row in rows if row.kind == EventFamily.CAMPAIGN for change in row.changes]
            if ids or origins.campaigns:
                balance_counts.mark(connection, sorted(origins.campaigns), ids, added[-1].last)
    return (added[-1].last - head.last if added else 0), len(taken) < STEP_ROWS


def _trace(rows: Sequence[OutboxRow], origins: Origins) -> None:
    """A span in the trace of each campaign or trigger of which something is published."""
    counts: Counter[str] = Counter()
    for row in rows:
        if row.kind == EventFamily.MESSAGE and origins.know(row):
            _, chunk, _, _, campaign_no, *_ = row.changes[0]
            _, spec = origins.triggers[chunk] if campaign_no is None else origins.campaigns[campaign_no]
            if trace := spec.get("trace"):
                counts[trace] += len(row.changes)
    for trace, count in counts.items():
        with span("publish events", {"messaging.batch.message_count": count}, SpanKind.PRODUCER, parent=trace):
            pass


def _origins(connection: Connection, rows: Iterable[OutboxRow]) -> Origins:
    numbers: set[int] = set()
    chunks: set[int] = set()
    for row in rows:
        if row.kind == EventFamily.MESSAGE:  # all messages of a row are of one chunk
            _, chunk, _, _, campaign_no, *_ = row.changes[0]
            (chunks if campaign_no is None else numbers).add(chunk if campaign_no is None else campaign_no)
    return Origins(
        stream.campaigns(connection, sorted(numbers)) if numbers else {},
        stream.triggers(connection, sorted(chunks)) if chunks else {},
    )


def _rows(head: Head, source: str, rows: Sequence[OutboxRow], origins: Origins) -> list[PublishedRow]:
    """The rows of the stream: neighbours of one kind become one row, so that single changes do not cost a row each."""
    number, hash_ = head.last, head.hash
    added: list[PublishedRow] = []
    for kind, same_kind in groupby(rows, key=lambda row: EventFamily(row.kind)):
        for happened in _portions(_all_happened(kind, same_kind, origins)):
            first, previous, lines = number + 1, hash_, []
            for each in happened:
                number += 1
                lines.append(line(number, source, kind, each))
                hash_ = stream.chain(hash_, lines[-1])
            added.append(PublishedRow(first, kind, tuple(lines), previous, hash_))
    return added


def _portions(happened: Iterator[Happened]) -> Iterator[list[Happened]]:
    portion: list[Happened] = []
    for each in happened:
        portion.append(each)
        if len(portion) == EVENTS_PER_ROW:
            yield portion
            portion = []
    if portion:
        yield portion


def _all_happened(kind: EventFamily, rows: Iterable[OutboxRow], origins: Origins) -> Iterator[Happened]:
    read = _READERS[kind]
    for row in rows:
        if kind is EventFamily.MESSAGE and not origins.know(row):
            continue  # retention deleted the campaign and its messages before they were published, years after they ended
        time = row.at.isoformat()
        for change in row.changes:
            yield read(time, change, origins)


# -- canary recipients ------------------------------------------------------------------------------------------------


_RECIPIENTS: Mapping[str, Callable[[Sequence[Any]], Sequence[str]]] = {
    EventFamily.MESSAGE: lambda change: change[5:6],
    EventFamily.CONSENT: lambda change: change[1:2],
    EventFamily.SUPPRESSION: lambda change: change[5] or (),
    EventFamily.INBOUND: lambda change: change[3] or (),
    EventFamily.RECIPIENT: lambda change: change[0:1],
}


def _without_canaries(rows: Sequence[OutboxRow]) -> list[OutboxRow]:
    """Without the changes that are about canary recipients: other systems know nobody of that name, and count what they get."""
    others = (replace(row, changes=[each for each in row.changes if not _is_of_canary(row.kind, each)]) for row in rows)
    return [row for row in others if row.changes]


def _is_of_canary(kind: str, change: Sequence[Any]) -> bool:
    recipients = _RECIPIENTS[kind](change) if kind in _RECIPIENTS else ()
    return bool(recipients) and all(map(is_canary, recipients))


# -- a change as the outbox has it -> what happened ---------------------------------------------------------------------
# Names in `data` are sorted, so that the JSON is canonical.


def _message(time: str, change: Sequence[Any], origins: Origins) -> Happened:
    period, chunk, row, leg, campaign_no, recipient, channel, state, reason, attempts, provider, template = change
    origin, spec = origins.triggers[chunk] if campaign_no is None else origins.campaigns[campaign_no]
    variants = spec.get("variants") or ()
    data = {
        "attempts": attempts,
        "campaign": None if campaign_no is None else origin,
        "channel": channel,
        "cost_centre": spec.get("cost_centre"),
        "entity": spec["entity"],
        "kind": spec["kind"],
        "message": str(MessageId(period, chunk, row, leg)),
        "offer_type": spec.get("offer_type"),
        "provider": provider,
        "reason": reason,
        "recipient": recipient,
        "state": state,
        "tags": spec.get("tags") or [],
        "template": template if variants else spec["template"],
        "trigger": origin if campaign_no is None else None,
        "variant": next((name for name, each in variants if each == template), None),
    }
    return Happened(state, recipient, time, data, spec.get("trace"))


def _consent(time: str, change: Sequence[Any], _: Origins) -> Happened:
    no, recipient, seq, subject, old_value, new_value, source, said_at = change
    data = {
        "evidence": f"consent:{no}",
        "new_value": new_value,
        "number": seq,
        "old_value": old_value,
        "recipient": recipient,
        "said_at": said_at,
        "source": source,
        "subject": subject,
    }
    return Happened("changed", recipient, time, data)


def _suppression(time: str, change: Sequence[Any], _: Origins) -> Happened:
    what, no, channel, reason, source, recipients = change
    suppression = f"suppression:{no}"
    data = {"channel": channel, "reason": reason, "recipients": recipients, "source": source, "suppression": suppression}
    return Happened(what, suppression, time, data)


def _inbound(time: str, change: Sequence[Any], _: Origins) -> Happened:
    inbound, channel, meaning, recipients = change
    data = {"channel": channel, "inbound": inbound, "meaning": meaning, "recipients": recipients}
    return Happened("received", f"inbound:{inbound}", time, data)


def _campaign(time: str, change: Sequence[Any], _: Origins) -> Happened:
    campaign, state, previous_state, entity, templates, audience, invalid, *labels = change
    tags, cost_centre = labels or (None, None)  # a row that was written before revision 0023 has none
    data = {
        "audience": audience,
        "campaign": campaign,
        "cost_centre": cost_centre,
        "entity": entity,
        "invalid": invalid,
        "previous_state": previous_state,
        "state": state,
        "tags": tags or [],
        "templates": templates,
    }
    return Happened(state, campaign, time, data)


def _balance(time: str, change: Sequence[Any], _: Origins) -> Happened:
    campaign, state, entity, audience, invalid, states, reasons, channels, variants = change
    data = {
        "audience": audience,
        "campaign": campaign,
        "channels": _with_sorted_names(channels),
        "entity": entity,
        "invalid": invalid,
        "reasons": _with_sorted_names(reasons),
        "state": state,
        "states": _with_sorted_names(states),
        "variants": _with_sorted_names(variants),
    }
    return Happened("counted", campaign, time, data)


def _with_sorted_names(value: Any) -> Any:
    """PostgreSQL sorts the names of JSON objects by their length first."""
    return {name: _with_sorted_names(value[name]) for name in sorted(value)} if isinstance(value, dict) else value


def _template(time: str, change: Sequence[Any], _: Origins) -> Happened:
    no, template, version, digest, approved = change
    data = {"approval": no, "digest": digest, "template": template, "version": version}
    return Happened("approved" if approved else "withdrawn", template, time, data)


def _recipient(time: str, change: Sequence[Any], _: Origins) -> Happened:
    (recipient,) = change
    return Happened("erased", recipient, time, {"recipient": recipient})


_READERS: Mapping[EventFamily, Callable[[str, Sequence[Any], Origins], Happened]] = {
    EventFamily.MESSAGE: _message,
    EventFamily.CONSENT: _consent,
    EventFamily.SUPPRESSION: _suppression,
    EventFamily.INBOUND: _inbound,
    EventFamily.CAMPAIGN: _campaign,
    EventFamily.BALANCE: _balance,
    EventFamily.TEMPLATE: _template,
    EventFamily.RECIPIENT: _recipient,
}
