"""The arrival log: every message that reached the sandbox, one JSON line each, in a file from the first to the last.

The line is written before the answer leaves, so that a sandbox killed at any moment still knows, when started again
on the same file, each message whose answer a client may have seen. In memory a message costs eight bytes and, for
Twilio, its place in the index by number.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import IO, Any, NamedTuple

BLOCK_LINES = 2_000


class Arrival(NamedTuple):
    """One message for one address. `sender` and `text` are kept of texts only: Twilio can be asked for its messages later."""

    provider: str
    channel: str
    address: str
    message_id: str
    receipt: str
    digest: str
    sender: str = ""
    text: str = ""


class DamagedLogError(Exception):
    """A state folder whose log holds something else than arrivals; nothing was changed in it."""


class ArrivalLog:
    """Append, count, read. Sequence numbers start at 1 and never come back, not even after `clear`, while it is
    open."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file = _open(path)
        self._first = 1
        self._ends = array("Q")  # where each line ends in the file
        self._seqs_by_number: dict[str, list[int]] = defaultdict(list)
        self.counts: Counter[str] = Counter()
        self._restore()

    @property
    def next_seq(self) -> int:
        return self._first + len(self._ends)

    def append(self, arrivals: Sequence[Arrival]) -> tuple[int, float]:
        """Record messages that came in one request; gives the first one's number and their common time."""
        first, at = self.next_seq, self._clock()
        lines = [_line(seq, at, arrival) for seq, arrival in enumerate(arrivals, first)]
        end = self._ends[-1] if self._ends else 0
        _write_all(self._file.fileno(), b"".join(lines), end)
        for seq, (line, arrival) in enumerate(zip(lines, arrivals, strict=True), first):
            end += len(line)
            self._index(seq, end, arrival.channel, arrival.address if arrival.provider == "twilio" else None)
        return first, at

    def _index(self, seq: int, end: int, channel: str, number: str | None) -> None:
        self._ends.append(end)
        self.counts[channel] += 1
        if number is not None:
            self._seqs_by_number[number].append(seq)

    def lines(self, after: int = 0, until: int | None = None, provider: str = "") -> Iterator[bytes]:
        """The lines numbered above `after` and below `until`, oldest first, in blocks of some thousand."""
        stop = self.next_seq if until is None else min(until, self.next_seq)
        wanted = f'"provider":"{provider}"'.encode()
        for first in range(max(after + 1, self._first), stop, BLOCK_LINES):
            block = self._read(first, min(first + BLOCK_LINES, stop))
            if provider:
                block = b"".join(line for line in block.splitlines(keepends=True) if wanted in line[:64])
            if block:
                yield block

    def get(self, seq: int) -> dict[str, Any] | None:
        """One line as an object; None for a number that is not in the log."""
        if not self._first <= seq < self.next_seq:
            return None
        line: dict[str, Any] = json.loads(self._read(seq, seq + 1))
        return line

    def messages_to(self, address: str) -> Iterable[dict[str, Any]]:
        """Twilio's messages to one number, newest first."""
        found = (self.get(seq) for seq in reversed(self._seqs_by_number.get(address, ())))
        return (line for line in found if line is not None)

    def clear(self) -> None:
        """Forget everything but the numbering."""
        self._first = self.next_seq
        self._ends = array("Q")
        self._seqs_by_number.clear()
        self.counts.clear()
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()

    def _read(self, first: int, stop: int) -> bytes:
        start = self._ends[first - self._first - 1] if first > self._first else 0
        end = self._ends[stop - self._first - 1]
        return os.pread(self._file.fileno(), end - start, start)

    def _restore(self) -> None:
        """Learn from the file what an earlier process recorded; a line torn by its end is cut off."""
        self._file.seek(0)
        end = 0
        with os.fdopen(os.dup(self._file.fileno()), "rb") as reader:
            for line in reader:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                self._restore_line(line, end)
        self._file.truncate(end)

    def _restore_line(self, line: bytes, end: int) -> None:
        try:
            known = json.loads(line)
            number = known["address"] if known["provider"] == "twilio" else None
            if not self._ends:
                self._first = known["seq"]
            self._index(known["seq"], end, known["channel"], number)
        except (ValueError, KeyError, TypeError):
            raise DamagedLogError(f"the arrival log is damaged in line {len(self._ends) + 1}") from None


def _open(path: Path | None) -> IO[bytes]:
    """The log's file, or one without a name that goes when it is closed."""
    if path is None:
        return tempfile.TemporaryFile(buffering=0)
    path.touch()
    return path.open("r+b", buffering=0)


def _line(seq: int, at: float, arrival: Arrival) -> bytes:
    """Written by hand, for `json.dumps` costs five times as much; what a client chose is quoted."""
    provider, channel, address, message_id, receipt, digest, sender, text = arrival
    line = (
        f'{{"seq":{seq},"provider":"{provider}","channel":"{channel}","at":{at:.6f},"address":{quoted(address)},'
        f'"message_id":{quoted(message_id)},"receipt":{quoted(receipt)},"digest":"{digest}"'
    )
    if sender:
        line += f',"sender":{quoted(sender)},"text":{quoted(text)}'
    return (line + "}\n").encode()


def _write_all(fd: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written
