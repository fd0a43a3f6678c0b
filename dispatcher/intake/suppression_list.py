"""Lists of suppressed addresses: our own, and those that other providers export (`suppression_formats.toml`).

What counts is the address. A row with a readable address is taken also where its date or the rest cannot be read: in doubt, nothing
is sent.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from channels.base import Channel
from channels.suppression_lists import ListedByProvider
from dispatcher.domain import addresses, opt_out_keywords
from dispatcher.domain.addresses import InvalidAddress
from dispatcher.domain.notation import day, trim
from dispatcher.domain.opt_out_keywords import ReplyMeaning
from dispatcher.intake.errors import BadInput, InputError, StrictModel
from dispatcher.intake.rows import Cell, Columns, SourceRow, UnreadableRow, read_header, read_rows
from dispatcher.ledger.consent.suppression_import import ListedAddress
from dispatcher.ledger.keyed_hash import KEY_BYTES
from dispatcher.policy import DEFAULT_FILE_RULES, FileRules

FORMATS_FILE = Path(__file__).with_name("suppression_formats.toml")
PLAIN = "plain"
NO_REASON = "imported"
PLAIN_COLUMNS = ("address", "email", "phone", "whatsapp", "hash", "key", "channel", "reason", "source", "date")
_ADDRESS_COLUMNS = ("address", "email", "phone", "whatsapp", "hash")
_DATE_COLUMNS = ("date", "since", "created", "created_at")
_EXPORT_COLUMNS = ("no", "created_by", "lifted_at", "lifted_by", "lifted_because")  # in our own export, and not read
_KNOWN_COLUMNS = {*PLAIN_COLUMNS, *_DATE_COLUMNS, *_EXPORT_COLUMNS}  # of a plain list
_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_YEAR_MIN = 1990


class ReplyColumns(StrictModel):
    """The columns of a log in which people's answers are found."""

    address: str
    text: str
    direction: str


class ListFormat(StrictModel):
    """A format of `suppression_formats.toml`."""

    columns: list[str]
    optional: frozenset[str] = frozenset()
    exact: bool = False
    file: str = ""
    named: bool = False
    refused: str = ""
    source: str = ""
    channel: Literal["email", "sms", "whatsapp", "phone"] = "email"
    address: str = ""
    date: tuple[str, ...] = ()
    reason: str = ""
    code: str = ""
    codes: dict[str, str] = Field(default_factory=dict)
    reply: ReplyColumns | None = None

    def fits(self, columns: set[str], file: str) -> bool:
        """Whether a file with these columns and this name can have the format."""
        needed = set(self.columns)
        is_other = self.exact and bool(columns - needed - self.optional)
        return needed <= columns and not is_other and (not self.named or self.is_named(file))

    def is_named(self, file: str) -> bool:
        """Whether the name of a file says that it has the format."""
        return bool(self.file) and re.search(self.file, file.casefold()) is not None


class _FormatsFile(StrictModel):
    formats: dict[str, ListFormat]
    opt_outs: dict[str, frozenset[str]]
    words: dict[str, str]


@lru_cache(maxsize=1)
def _declared() -> _FormatsFile:
    return _FormatsFile.model_validate(tomllib.loads(FORMATS_FILE.read_text(encoding="utf-8")))


def format_names() -> list[str]:
    """The formats that a list can have."""
    return [PLAIN, *_declared().formats]


@dataclass(frozen=True, slots=True)
class SuppressionList:
    """A file to read. `format`, `reason` and `source` are None where the file says it.

    `keys` are the names of the secret keys that hashes in it may be made with (see `derived_keys.fingerprint`).
    """

    path: Path
    now: datetime
    format: str | None = None
    reason: str | None = None
    source: str | None = None
    keys: frozenset[str] = frozenset()
    rules: FileRules = DEFAULT_FILE_RULES


@dataclass(frozen=True, slots=True)
class ListRow:
    """The addresses of a row. Without any, it is rejected where there is a `problem`, else it says nothing about an address.

    `problem` of a row with addresses: what of it was not used. `field` is its column. Neither has an address.
    """

    line: int
    addresses: tuple[ListedAddress, ...] = ()
    field: str = ""
    problem: str = ""


class _UnusableCell(ValueError):
    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


def read_list(source: SuppressionList) -> Iterator[ListRow]:
    """The rows of a list, streamed. Raises `BadInput` where its format is not known, or the file cannot be read as a whole."""
    name = source.format or recognised(source.path)
    if name == PLAIN:
        yield from _read(source, _plain_columns(source.path), lambda row: _plain(source, row), lambda row: _rescued(source, row))
        return
    form = _format(name, str(source.path))
    columns = Columns(_any_column, form.address, form.columns)
    if form.code:
        yield from _read(source, columns, lambda row: _coded(source, form, row), lambda _: ())
    else:
        yield from _read(
            source, columns, lambda row: _listed(source, form, row), lambda row: _rescued(source, row, form.reason, form.source)
        )


def listed_by_provider(entries: Iterable[ListedByProvider], channel: Channel, source: str, rules: FileRules) -> Iterator[ListRow]:
    """Entries of a provider's list, as if they were the rows of a file."""
    for number, entry in enumerate(entries, start=1):
        try:
            address = _address(channel, trim(entry.address), "email" if channel is Channel.EMAIL else "phone", rules)
        except _UnusableCell as error:
            yield ListRow(number, (), error.field, str(error))
        else:
            yield ListRow(number, (_suppressed(channel, address, entry.reason, source, entry.at),))


def _read(
    source: SuppressionList,
    columns: Columns,
    parse: Callable[[SourceRow], ListRow],
    rescue: Callable[[UnreadableRow], Iterable[ListedAddress]],
) -> Iterator[ListRow]:
    for row in read_rows(source.path, columns, source.rules):
        if isinstance(row, UnreadableRow):
            yield ListRow(row.line, tuple(rescue(row)), row.field, row.reason)
            continue
        try:
            yield parse(row)
        except _UnusableCell as error:
            yield ListRow(row.line, (), error.field, str(error))


def recognised(path: Path) -> str:
    """The format of a file, by its header; by its name where the header fits several. Raises `BadInput` where both fit several."""
    columns = _header_names(path)
    fitting = [name for name, form in _declared().formats.items() if form.fits(columns, path.name)]
    named = [name for name in fitting if _declared().formats[name].is_named(path.name)]
    if len(named) == 1:
        return named[0]
    if columns <= _KNOWN_COLUMNS and not columns.isdisjoint(_ADDRESS_COLUMNS):
        fitting.append(PLAIN)
    if len(fitting) > 1:
        problem = f"can't be told from the columns {', '.join(sorted(columns))}: give one of {', '.join(fitting)}"
        raise BadInput(InputError(str(path), 1, "format", problem))
    return fitting[0] if fitting else PLAIN


def _header_names(path: Path) -> set[str]:
    return {re.sub(r"[\s-]+", "_", trim(cell).casefold()) for cell in read_header(path)}


def _format(name: str, file: str) -> ListFormat:
    form = _declared().formats.get(name)
    if form is None:
        raise BadInput(InputError(file, 0, "format", f"is none of {', '.join(format_names())}"))
    if form.refused:
        raise BadInput(InputError(file, 0, "", f"is a list of {name}: {form.refused}"))
    return form


def _any_column(name: str) -> Cell | None:
    """Every column, in lower case: providers add columns."""
    return str if name == name.casefold() and " " not in name else None


def _plain_columns(path: Path) -> Columns:
    names = _header_names(path)
    key = next((name for name in _ADDRESS_COLUMNS if name in names), "address")
    return Columns(lambda name: str if name in _KNOWN_COLUMNS else None, key, PLAIN_COLUMNS)


# -- rows --------------------------------------------------------------------------------------------------------------


def _listed(source: SuppressionList, form: ListFormat, row: SourceRow) -> ListRow:
    """A row of a list in which each address is suppressed for one reason."""
    since, problem = _since(row.data, form.date, source.now)
    listed = _entry(source, form, row.data.get(form.address), form.address, since, form.reason)
    return ListRow(row.line, (listed,), problem, NOT_READ if problem else "")


def _coded(source: SuppressionList, form: ListFormat, row: SourceRow) -> ListRow:
    """A row of a log: it suppresses an address where its code says so, or where it is an answer STOP."""
    since, _ = _since(row.data, form.date, source.now)
    reply = form.reply
    if reply is not None and _text(row.data, reply.direction).startswith("inbound"):
        if opt_out_keywords.classify(_text(row.data, reply.text)) is not ReplyMeaning.STOP:
            return ListRow(row.line)
        return ListRow(row.line, (_entry(source, form, row.data.get(reply.address), reply.address, since, ReplyMeaning.STOP),))
    code = _text(row.data, form.code).casefold()
    reason = form.codes.get(code)
    if reason is None:
        return ListRow(row.line)
    return ListRow(row.line, (_entry(source, form, row.data.get(form.address), form.address, since, reason),))


def _entry(source: SuppressionList, form: ListFormat, text: Any, field: str, since: datetime | None, reason: str) -> ListedAddress:
    if not isinstance(text, str):
        raise _UnusableCell(field, "is missing")
    channel, plain = Channel.SMS if form.channel == "phone" else Channel(form.channel), trim(text)
    if plain.casefold().startswith("whatsapp:"):
        channel, plain = Channel.WHATSAPP, plain[len("whatsapp:") :]
    address = _address(channel, plain, field, source.rules)
    return _suppressed(channel, address, source.reason or reason, source.source or form.source, since)


def _suppressed(channel: Channel, address: str, reason: str, source: str, since: datetime | None) -> ListedAddress:
    return ListedAddress(channel, address, None, reason, source, since, reason in _declared().opt_outs["reasons"])


def _plain(source: SuppressionList, row: SourceRow) -> ListRow:
    """A row of a plain list: an address or a hash, and what the list says of it."""
    data = row.data
    since, problem = _since(data, _DATE_COLUMNS, source.now)
    text = _text(data, "reason").casefold().replace(" ", "_")
    reason = _declared().words.get(text, text) or source.reason or NO_REASON
    if not _WORD.fullmatch(reason):
        reason, problem = source.reason or NO_REASON, "reason"
    origin = _text(data, "source").casefold() or source.source or "import"
    if not _WORD.fullmatch(origin):
        origin, problem = source.source or "import", "source"
    opt_out = reason in _declared().opt_outs["reasons"]
    listed = [
        ListedAddress(channel, address, key, reason, origin, since, opt_out) for channel, address, key in _targets(source, data)
    ]
    return ListRow(row.line, tuple(listed), problem, NOT_READ if problem else "")


NOT_READ = "can't be read; the address is suppressed all the same"


def _targets(source: SuppressionList, data: Mapping[str, Any]) -> list[tuple[Channel, str | None, bytes | None]]:
    """The channels of a row, each with the address or its hash."""
    channel = _channel(data)
    if digest := _text(data, "hash"):
        return [(channel or _required("channel"), None, _hash(digest, _text(data, "key"), source.keys))]
    targets = [
        (each, _address(each, text, field, source.rules))
        for field in _ADDRESS_COLUMNS[:-1]
        if (text := _text(data, field))
        for each in _channels(field, text, channel)
    ]
    if not targets:
        raise _UnusableCell("address", "is missing")
    return [(each, address, None) for each, address in targets]


def _channels(field: str, text: str, channel: Channel | None) -> Sequence[Channel]:
    """On which channels the address of a column is suppressed. A number without a channel: on both that use it."""
    if field == "email" or (field == "address" and "@" in text):
        return [Channel.EMAIL]
    if field == "whatsapp":
        return [Channel.WHATSAPP]
    return [channel] if channel in {Channel.SMS, Channel.WHATSAPP} else [Channel.SMS, Channel.WHATSAPP]


def _channel(data: Mapping[str, Any]) -> Channel | None:
    text = _text(data, "channel").casefold()
    if not text:
        return None
    if text not in {Channel.EMAIL, Channel.SMS, Channel.WHATSAPP}:
        raise _UnusableCell("channel", "should be email, sms or whatsapp")
    return Channel(text)


def _required(field: str) -> Channel:
    raise _UnusableCell(field, "is missing")


def _hash(text: str, key: str, keys: frozenset[str]) -> bytes:
    """The keyed hash of an address. One that another secret key made would suppress nobody."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != KEY_BYTES:
        raise _UnusableCell("hash", f"should be {2 * KEY_BYTES} hexadecimal digits, as in an export of this program")
    if key not in keys:
        raise _UnusableCell("key", "is not the name of a secret key of this ledger: a hash of another key finds no address")
    return digest


def _address(channel: Channel, text: str, field: str, rules: FileRules) -> str:
    try:
        return addresses.email(text) if channel is Channel.EMAIL else addresses.phone(text, rules.default_region)
    except InvalidAddress as error:
        raise _UnusableCell(field, str(error)) from None


def _rescued(
    source: SuppressionList, row: UnreadableRow, reason: str | None = None, origin: str | None = None
) -> Iterator[ListedAddress]:
    """The addresses in a row whose cells cannot be told apart: each cell that is one as a whole."""
    texts = [text for readings in (row.readings, *row.others) for reading in readings for text in reading.values()]
    texts += row.row if isinstance(row.row, list) else []
    for text in dict.fromkeys(trim(text) for text in texts if isinstance(text, str)):
        channels = [Channel.EMAIL] if "@" in text else [Channel.SMS, Channel.WHATSAPP] if text.startswith("+") else []
        for channel in channels:
            try:
                address = _address(channel, text, "", source.rules)
            except _UnusableCell:
                continue
            yield _suppressed(channel, address, source.reason or reason or NO_REASON, source.source or origin or "import", None)


# -- cells -------------------------------------------------------------------------------------------------------------


def _text(data: Mapping[str, Any], field: str) -> str:
    value = data.get(field)
    return trim(str(value)) if value is not None else ""


def _since(data: Mapping[str, Any], columns: Sequence[str], now: datetime) -> tuple[datetime | None, str]:
    """The moment of a row, and the column whose text is none."""
    for column in columns:
        if text := _text(data, column):
            moment = _moment(text)
            is_possible = moment is not None and moment.year >= _YEAR_MIN and moment <= now + timedelta(days=1)
            return (min(moment, now), "") if moment and is_possible else (None, column)
    return None, ""


def _moment(text: str) -> datetime | None:
    if text.isascii() and text.replace(".", "", 1).isdigit():
        seconds = float(text)
        seconds = seconds / 1000 if seconds > 1e11 else seconds
        return datetime.fromtimestamp(seconds, UTC) if seconds < 1e11 else None
    try:
        moment = datetime.fromisoformat(day(text.removesuffix(" UTC")))
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
