"""Suppressed addresses: import lists of other providers, list, look up, lift and export them."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from channels.base import Channel, ChannelError
from channels.lookup import unwrap
from channels.suppression_lists import ListedByProvider, with_lists
from dispatcher.domain import addresses
from dispatcher.domain.addresses import InvalidAddress
from dispatcher.domain.derived_keys import KeyRing, fingerprint
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.suppression_list import (
    NOT_READ,
    ListRow,
    SuppressionList,
    format_names,
    listed_by_provider,
    read_list,
    recognised,
)
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import address_keys, suppression_import, suppression_search
from dispatcher.ledger.consent.suppression_import import ListCounts
from dispatcher.ledger.consent.suppression_search import SuppressionFilter, SuppressionRecord
from dispatcher.ledger.secret_keys import short
from dispatcher.runtime.services import Services

__all__ = ["SuppressionFilter", "SuppressionImport", "SuppressionRecord", "SuppressionRequest", "export_csv", "find"]
__all__ += ["format_names", "import_list", "import_view", "lift", "page", "pull", "view", "without_lists"]

BATCH_ROWS = 10_000
PAGE_ROWS = 5_000
FAULTS_SHOWN = 20
REASON_LENGTH_MAX = 500
WORD = r"^[a-z0-9][a-z0-9_.-]{0,63}$"  # a reason, or a source
EXPORT_COLUMNS = ("no", "channel", "hash", "key", "reason", "source", "since", "created_at", "created_by")

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class SuppressionRequest:
    """A list to import. `rejects`: the file for the rows with a problem; None for none. The rest: see `SuppressionList`."""

    path: Path
    actor: str
    rejects: Path | None = None
    format: str | None = None
    reason: str | None = None
    source: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class SuppressionImport:
    """The result of an import. A row is `taken`, `ignored` because it is about something else, or `rejected`.

    `format` is that of the list, as given or recognised; `reasons` counts the rows that are taken by the reason they give.
    `problems` are the first rows of which something could not be read, as (line, column, what), without addresses; `rejects` is the
    file with all of them.
    """

    taken: int
    ignored: int
    rejected: int
    counts: ListCounts
    problems: tuple[tuple[int, str, str], ...] = ()
    rejects: Path | None = None
    format: str = ""
    reasons: Mapping[str, int] = field(default_factory=dict)


class ListsNotRead(Exception):
    """Lists of providers could not be read to their end. The message has their codes, and no address."""

    def __init__(self, errors: Iterable[str]) -> None:
        super().__init__(f"not read to the end: {'; '.join(errors)}. What could be read is suppressed: run it again")


@dataclass
class _Problems:
    """The rows of which something could not be read: the first ones, and a file of all, created with its first row."""

    path: Path | None
    first: list[tuple[int, str, str]] = field(default_factory=list)
    file: TextIO | None = None

    def add(self, row: ListRow) -> None:
        outcome = f"{row.problem}; the address in it was suppressed" if row.addresses and row.problem != NOT_READ else row.problem
        if len(self.first) < FAULTS_SHOWN:
            self.first.append((row.line, row.field, outcome))
        if self.path is not None:
            if self.file is None:
                self.file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8")
            line = {"line": row.line, "field": row.field, "reason": outcome, "suppressed": bool(row.addresses)}
            self.file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def import_list(services: Services, request: SuppressionRequest, progress: Progress | None = None) -> SuppressionImport:
    """Import a list in batches, each in its own transaction. `progress` is called with the number of rows read.

    Importing a list again changes nothing, so an import that was interrupted is repeated. With `dry_run` nothing is written, and
    the result says what would be. Raises `BadInput` where the file cannot be read as a whole.
    """
    for name, word in (("reason", request.reason), ("source", request.source)):
        if word is not None and not re.fullmatch(WORD, word):
            raise BadInput(InputError(str(request.path), 0, name, "should be a word such as opted_out, in small letters"))
    list_format = request.format or recognised(request.path)
    source = SuppressionList(
        request.path,
        services.clock(),
        list_format,
        request.reason,
        request.source,
        frozenset(short(fingerprint(key)) for key in services.secret),
        services.policy.files,
    )
    return _suppress(services, request, read_list(source), list_format, progress)


def pull(
    services: Services, since: datetime | None, actor: str, dry_run: bool, progress: Progress | None = None
) -> Mapping[str, SuppressionImport]:
    """Suppress the addresses on the providers' own lists; the result of each provider that has any.

    It finds those that opted out while this program could not hear of it. Each list is read to its end before anything is written.
    Safe to repeat. Raises `ListsNotRead`, after what could be read is suppressed.
    """
    done: dict[str, SuppressionImport] = {}
    errors: list[str] = []
    for adapter in with_lists(services.providers.values()):
        entries: list[ListedByProvider] = []
        for page in adapter.suppression_lists(since):
            if isinstance(page, ChannelError):
                errors.append(f"{adapter.name}: {page}")
            else:
                entries += page
                if progress:
                    progress(len(entries))
        listed = listed_by_provider(entries, adapter.channel, adapter.name, services.policy.files)
        request = SuppressionRequest(Path(adapter.name), actor, dry_run=dry_run)
        done[adapter.name] = _suppress(services, request, listed, adapter.name)
    if errors:
        raise ListsNotRead(errors)
    return done


def without_lists(services: Services) -> list[str]:
    """The providers in use that have no list to read: their opt-outs come by file."""
    readable = {adapter.name for adapter in with_lists(services.providers.values())}
    return sorted({adapter.name for each in services.providers.values() for adapter in unwrap(each)} - readable)


def _suppress(
    services: Services,
    request: SuppressionRequest,
    listed_rows: Iterator[ListRow],
    list_format: str,
    progress: Progress | None = None,
) -> SuppressionImport:
    now = services.clock()
    rows: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    counts = ListCounts()
    with (
        lend(services.pool) as connection,
        closing(_Problems(request.rejects)) as problems,
        suppression_import.previewing(connection) if request.dry_run else nullcontext(),
    ):
        for batch in _batches(listed_rows):
            for row in batch:
                rows["taken" if row.addresses else "rejected" if row.problem else "ignored"] += 1
                if row.problem:
                    problems.add(row)
            reasons.update(row.addresses[0].reason for row in batch if row.addresses)
            listed = [address for row in batch for address in row.addresses]
            if request.dry_run:
                suppression_import.preview_rows(connection, services.secret, listed)
            elif listed:
                counts += suppression_import.add_listed(connection, services.secret, listed, request.actor, now)
            if progress:
                progress(rows.total())
        if request.dry_run:
            counts = suppression_import.preview(connection)
        rejects = request.rejects if problems.file is not None else None
    first = tuple(problems.first)
    return SuppressionImport(
        rows["taken"], rows["ignored"], rows["rejected"], counts, first, rejects, list_format, dict(reasons.most_common())
    )


def _batches(rows: Iterable[ListRow]) -> Iterator[list[ListRow]]:
    each = iter(rows)
    while batch := list(islice(each, BATCH_ROWS)):
        yield batch


def page(services: Services, wanted: SuppressionFilter, after: int = 0, limit: int = 100) -> list[SuppressionRecord]:
    """The next suppressions after this number, oldest first."""
    with lend(services.pool) as connection:
        return suppression_search.page(connection, wanted, after, limit)


def find(services: Services, text: str, actor: str) -> list[SuppressionRecord]:
    """All suppressions of an e-mail address or telephone number, newest first, lifted ones too. It is recorded who looked, and what
    was shown. Raises `BadInput` for text that is neither.
    """
    try:
        wanted = _addresses(text, services.policy.files.default_region)
    except InvalidAddress as error:
        raise BadInput(InputError("search", 0, "address", str(error))) from None
    with lend(services.pool) as connection, connection.transaction():
        keys = _keys(connection, services.secret, wanted)
        return suppression_search.find(connection, keys, actor, services.clock())


def _addresses(text: str, region: str) -> list[tuple[Channel, str]]:
    if "@" in text:
        return [(Channel.EMAIL, addresses.email(text))]
    number = addresses.phone(text, region)
    return [(Channel.SMS, number), (Channel.WHATSAPP, number)]


def _keys(connection: Connection, secret: KeyRing, wanted: list[tuple[Channel, str]]) -> list[tuple[Channel, bytes]]:
    key_of = address_keys.in_use(connection, secret, {(str(channel), address) for channel, address in wanted})
    return [(channel, key_of[channel, address]) for channel, address in wanted]


def lift(services: Services, no: int, actor: str, because: str) -> SuppressionRecord | None:
    """Lift a suppression; the ledger keeps who did it and why. None where there is none with this number.

    It permits nothing by itself: a person's own opt-out stays. Raises `BadInput` where no reason is given.
    """
    if not 0 < len(because.strip()) <= REASON_LENGTH_MAX:
        raise BadInput(InputError("lift", 0, "reason", f"should say why, in at most {REASON_LENGTH_MAX} characters"))
    with lend(services.pool) as connection:
        return suppression_search.lift(connection, no, actor, because.strip(), services.clock())


def export_csv(services: Services, wanted: SuppressionFilter) -> Iterator[str]:
    """Suppressions as the lines of a CSV file that `import_list` reads: hashes, reasons and dates, never addresses.

    `key` names the newest secret key. Each page is read by itself, so that a slow reader holds no connection.
    """
    key, after = short(fingerprint(services.secret.newest)), 0
    yield _csv_line(EXPORT_COLUMNS)
    while records := page(services, wanted, after, PAGE_ROWS):
        after = records[-1].no
        for record in records:
            yield _csv_line(
                (record.no, record.channel, record.address_key.hex(), key, record.reason, record.source,
                 record.since.isoformat(), record.created_at.isoformat(), record.created_by or "")
            )  # fmt: skip


def view(record: SuppressionRecord) -> dict[str, Any]:
    """A suppression, ready for JSON."""
    return {
        "no": record.no,
        "channel": str(record.channel),
        "hash": record.address_key.hex(),
        "reason": record.reason,
        "source": record.source,
        "since": record.since.isoformat(),
        "created_at": record.created_at.isoformat(),
        "created_by": record.created_by,
        "lifted_at": record.lifted_at.isoformat() if record.lifted_at else None,
        "lifted_by": record.lifted_by,
        "lifted_because": record.lifted_because,
    }


def import_view(imported: SuppressionImport, dry_run: bool) -> dict[str, Any]:
    """The result of an import, ready for JSON."""
    return {
        "dry_run": dry_run,
        "format": imported.format,
        "reasons": dict(imported.reasons),
        "taken": imported.taken,
        "ignored": imported.ignored,
        "rejected": imported.rejected,
        "suppressed": imported.counts.new,
        "suppressed_before": imported.counts.in_force,
        "lifted_later": imported.counts.lifted,
        "opt_outs_recorded": imported.counts.opt_outs,
        "messages_refused": imported.counts.refused,
        "faults": [{"line": line, "field": column, "message": problem} for line, column, problem in imported.problems],
        "reject_file": str(imported.rejects) if imported.rejects else None,
    }


def _csv_line(cells: Iterable[object]) -> str:
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
