"""Notice that the ledger was restored to an earlier moment, whoever did it and by whatever means.

Each process writes down its last claim before it hands a message off: in a file of DISPATCHER_HOME and, once a second, in Valkey or
Redis, where other machines find it. A ledger that lacks such a claim was restored, and is held: nothing is claimed from then on.
A claim takes microseconds to write down, and no statement.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import structlog
from redis import Redis, RedisError

from channels.send_window import boot_seconds
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.delivery import restored_messages
from dispatcher.ledger.delivery.claims import Claim
from dispatcher.ledger.delivery.unresolved import RESTORED
from dispatcher.ledger.maintenance import alerts, generations
from dispatcher.ledger.maintenance.generations import ClaimMark

FILE = "last-claim"
KEY = "dispatcher:last-claim"
SHARE_SECONDS = 1.0
SIZE = 512  # bytes of the file: one write replaces it whole
CLAIM_MISSING, NUMBER_REUSED, UNKNOWN_GENERATION, OTHER_PLACE = (
    "claim_missing",
    "number_reused",
    "unknown_generation",
    "other_place",
)
RESTORE_COMMAND = "restore_command"

log = structlog.get_logger()


@dataclass(slots=True)
class LedgerWatch:
    """The marks outside the ledger. Without a folder, this process remembers its own claims only."""

    home: Path | None = None
    shared: Redis | None = field(default=None, repr=False)
    _own: ClaimMark | None = None
    _identity: tuple[str, str, int] | None = None  # of the ledger, and of its generation with its number
    _shared_at: float = 0.0

    def check(self, connection: Connection, now: datetime) -> bool:
        """Compare the ledger with all marks, and hold it where it lacks a claim; returns whether it is held.

        Each process does it with each new connection, before anything else: a restore cuts all connections, as a rule.
        """
        here = generations.identity(connection)
        marks = [mark for mark in (self._read(), self._read_shared(), self._own) if mark is not None and mark.ledger == here.ledger]
        if not here.is_held:
            cause = _missing(connection, here.generations, marks)
            if cause is None and not marks and here.known_place not in ("", here.place) and generations.has_claimed(connection):
                cause = OTHER_PLACE
            if cause is not None:
                self.hold(connection, cause, now, here.place, max(marks, key=lambda mark: mark.number, default=None))
                here = generations.identity(connection)
            elif here.place != here.known_place:
                generations.set_place(connection, here.generation, here.place)
        self._identity = (here.ledger, here.generation, here.generation_no)
        return here.is_held

    def hold(self, connection: Connection, cause: str, now: datetime, place: str, seen: ClaimMark | None) -> None:
        """Begin a generation of the ledger that is held, and make what is claimed unresolved."""
        with connection.transaction():
            if not generations.begin(connection, cause, place, seen, now):
                return
            claimed = restored_messages.give_up_claims(connection, now)
            alerts.note(connection, "dispatcher", RESTORED, True, now)
        log.error(
            "the ledger was restored to an earlier moment: nothing is sent until it is released", cause=cause, claimed=claimed
        )

    def last_claim(self) -> ClaimMark | None:
        """The last claim that is known on this machine. A claim that begins now gets a higher number."""
        marks = [mark for mark in (self._read(), self._own) if mark is not None and self._is_present(mark)]
        return max(marks, key=lambda mark: mark.number, default=None)

    def newest(self) -> ClaimMark | None:
        """The last claim in the folder, of whatever ledger."""
        return self._read()

    def note_claim(self, connection: Connection, seen: ClaimMark | None, claim: Claim, now: datetime) -> bool:
        """Write down a claim, before anything of it is handed off; `seen` is `last_claim` from before the claim.

        False where an earlier claim had its number already: then the ledger is held, and nothing may be handed off.
        """
        if not claim.claimed:
            return True
        if seen is not None and claim.number <= seen.number:
            self.hold(connection, NUMBER_REUSED, now, generations.identity(connection).place, seen)
            return False
        if self._identity is None or self._identity[2] != claim.generation:
            here = generations.identity(connection)
            self._identity = (here.ledger, here.generation, here.generation_no)
        self._own = ClaimMark(*self._identity[:2], claim.number, str(min(claim.claimed)), claim.at)
        self._write(self._own)
        self._share(self._own)
        return True

    def _is_present(self, mark: ClaimMark) -> bool:
        return self._identity is not None and self._identity[:2] == (mark.ledger, mark.generation)

    # -- the file --------------------------------------------------------------------------------------------------

    def _read(self) -> ClaimMark | None:
        if self.home is None:
            return None
        try:
            return _parse((self.home / FILE).read_bytes())
        except OSError:
            return None

    def _write(self, mark: ClaimMark) -> None:
        """The newest claim stays: other processes of this machine write the same file."""
        if self.home is None:
            return
        with _locked(self.home / FILE) as file:
            there = _parse(os.pread(file, SIZE, 0))
            if there is None or (there.ledger, there.generation) != (mark.ledger, mark.generation) or there.number < mark.number:
                os.pwrite(file, _line(mark), 0)

    # -- Valkey or Redis -------------------------------------------------------------------------------------------

    def _read_shared(self) -> ClaimMark | None:
        if self.shared is None:
            return None
        with suppress(RedisError):
            text = self.shared.get(KEY)
            return _parse(text) if isinstance(text, bytes) else None
        return None

    def _share(self, mark: ClaimMark) -> None:
        if self.shared is None or boot_seconds() < self._shared_at + SHARE_SECONDS:
            return
        self._shared_at = boot_seconds()
        with suppress(RedisError):  # the file is there, and the next claim tries again
            self.shared.set(KEY, _line(mark))


def _missing(connection: Connection, known: tuple[str, ...], marks: list[ClaimMark]) -> str | None:
    """How it shows that the ledger lacks one of these claims; None where it has all of the present generation."""
    for mark in marks:
        if mark.generation not in known:
            return UNKNOWN_GENERATION
        if mark.generation == known[-1] and not generations.has_claim(connection, mark):
            return CLAIM_MISSING
    return None


def _line(mark: ClaimMark) -> bytes:
    return json.dumps(mark.as_json()).encode().ljust(SIZE - 1) + b"\n"


def _parse(text: bytes) -> ClaimMark | None:
    try:
        return ClaimMark(**json.loads(text))
    except (ValueError, TypeError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)
