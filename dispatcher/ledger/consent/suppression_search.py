"""Suppressions as people and other systems see them: list, look an address up, lift. They show hashes and never addresses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from channels.base import Channel
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent.suppressions import raise_versions


@dataclass(frozen=True, slots=True)
class SuppressionRecord:
    """A suppression. `since`: when the address was suppressed here, or at the provider that the list came from.

    `created_by` and `lifted_by` are None where no person did it: a provider's report, STOP, START.
    """

    no: int
    channel: Channel
    address_key: bytes
    reason: str
    source: str
    since: datetime
    created_at: datetime
    created_by: str | None
    lifted_at: datetime | None
    lifted_by: str | None
    lifted_because: str | None

    @property
    def evidence(self) -> str:
        """How a decision names it as evidence."""
        return f"suppression:{self.no}"


@dataclass(frozen=True, slots=True)
class SuppressionFilter:
    """Which suppressions: those of a channel, reason or source, since a moment; with `lifted`, those that were lifted too."""

    channel: Channel | None = None
    reason: str | None = None
    source: str | None = None
    since: datetime | None = None
    lifted: bool = False


_COLUMNS = ", ".join("coalesce(since, created_at)" if field.name == "since" else field.name for field in fields(SuppressionRecord))
_PAGE = f"""
SELECT {_COLUMNS} FROM suppressions
WHERE no > %(after)s AND (%(channel)s::text IS NULL OR channel = %(channel)s) AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(source)s::text IS NULL OR source = %(source)s)
  AND (%(since)s::timestamptz IS NULL OR coalesce(since, created_at) >= %(since)s) AND (%(lifted)s OR lifted_at IS NULL)
ORDER BY no LIMIT %(limit)s
"""


def page(connection: Connection, wanted: SuppressionFilter, after: int, limit: int) -> list[SuppressionRecord]:
    """The next suppressions after this number, by number."""
    values = {field.name: getattr(wanted, field.name) for field in fields(wanted)}
    rows = connection.execute(_PAGE, {**values, "after": after, "limit": limit})
    return [_record(row) for row in rows]


def find(
    connection: Connection, addresses: Collection[tuple[Channel, bytes]], actor: str, now: datetime
) -> list[SuppressionRecord]:
    """All suppressions of these addresses, newest first, lifted ones too. Records who looked and what was shown."""
    statement = (
        f"SELECT {_COLUMNS} FROM suppressions WHERE (channel, address_key) IN"
        " (SELECT * FROM unnest(%s::text[], %s::bytea[])) ORDER BY no DESC"
    )
    with connection.transaction():
        rows = connection.execute(statement, ([str(channel) for channel, _ in addresses], [key for _, key in addresses]))
        records = [_record(row) for row in rows]
        connection.execute(
            "INSERT INTO suppression_lookups (actor, at, shown) VALUES (%s, %s, %s)",
            (actor, now, [record.no for record in records]),
        )
    return records


def lift(connection: Connection, no: int, actor: str, because: str, now: datetime) -> SuppressionRecord | None:
    """Lift a suppression. Returns it as it is now, or None where there is none with this number.

    It permits nothing by itself: a person's own opt-out stays. One that was lifted before does not change.
    """
    with connection.transaction():
        lifted = connection.execute(
            "UPDATE suppressions SET lifted_at = %s, lifted_by = %s, lifted_because = %s WHERE no = %s AND lifted_at IS NULL",
            (now, actor, because, no),
        )
        if lifted.rowcount:
            raise_versions(connection, [no], now)
        row = connection.execute(f"SELECT {_COLUMNS} FROM suppressions WHERE no = %s", (no,)).fetchone()
    return _record(row) if row else None


def _record(row: tuple[Any, ...]) -> SuppressionRecord:
    no, channel, address_key, *rest = row
    return SuppressionRecord(no, Channel(channel), bytes(address_key), *rest)
