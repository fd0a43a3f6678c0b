"""The arrival log: a file with one JSON line for each message that reached the sandbox.

The line is written before the answer is sent. So a sandbox that was killed and restarted on the same file has every message whose
answer a client may have seen. In memory a message takes eight bytes, and for Twilio an entry in the index by number.
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
    """One message for one address. `sender` and `text` are set for SMS and WhatsApp only: Twilio lists its messages."""

    provider: str
    channel: str
    address: str
    message_id: str
    receipt: str
    digest: str
    sender: str = ""
    text: str = ""


class DamagedLogError(Exception):
    """The log in the state folder cannot be read. It was not changed."""


class ArrivalLog:
    """Append, count and read arrivals. Sequence numbers start at 1 and are not reused, even after `clear`, while it is open."""

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
        """Record the messages of one request. Returns the number of the first one and their common time."""
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
        """Yield the lines with numbers above `after` and below `until`, oldest first, in blocks of up to 2,000 lines."""
        stop = self.next_seq if until is None else min(until, self.next_seq)
        wanted = f'"provider":"{provider}"'.encode()
        for first in range(max(after + 1, self._first), stop, BLOCK_LINES):
            block = self._read(first, min(first + BLOCK_LINES, stop))
            if provider:
                block = b"".join(line for line in block.splitlines(keepends=True) if wanted in line[:64])
            if block:
                yield block

    def get(self, seq: int) -> dict[str, Any] | None:
        """Return one line as an object; None for a number that is not in the log."""
        if not self._first <= seq < self.next_seq:
            return None
        line: dict[str, Any] = json.loads(self._read(seq, seq + 1))
        return line

    def messages_to(self, address: str) -> Iterable[dict[str, Any]]:
        """Return Twilio's messages to one number, newest first."""
        lines = (self.get(seq) for seq in reversed(self._seqs_by_number.get(address, ())))
        return (line for line in lines if line is not None)

    def clear(self) -> None:
        """Delete all arrivals. Numbers continue."""
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
        """Read what an earlier process recorded. An incomplete last line is removed."""
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
            record = json.loads(line)
            number = record["address"] if record["provider"] == "twilio" else None
            if not self._ends:
                self._first = record["seq"]
            self._index(record["seq"], end, record["channel"], number)
        except (ValueError, KeyError, TypeError):
            raise DamagedLogError(f"the arrival log is damaged in line {len(self._ends) + 1}") from None


def _open(path: Path | None) -> IO[bytes]:
    """Open the log file, or a temporary file."""
    if path is None:
        return tempfile.TemporaryFile(buffering=0)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # it holds addresses
    os.fchmod(descriptor, 0o600)  # of a file that an earlier version made, too
    return os.fdopen(descriptor, "r+b", buffering=0)


def _line(seq: int, at: float, arrival: Arrival) -> bytes:
    """Encode a line by hand: `json.dumps` costs five times as much. Values from clients are quoted."""
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
