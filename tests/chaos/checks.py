"""The promises, checked against the sandbox's arrival log, the ledger, the logs, and the answers that the load got."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dispatcher.delivery.reconciliation import NOT_TAKEN
from dispatcher.maintenance import ledger_audit
from tests.chaos.consumers import Consumers
from tests.chaos.load import MARK, PHONES, Journal
from tests.chaos.program import SEND_DEADLINE_SECONDS, Program, repeat

ALLOWANCE_SECONDS = 1.0  # from the last look at the deadline until the sandbox has written its log, on a busy machine
BOUND_SECONDS = SEND_DEADLINE_SECONDS + ALLOWANCE_SECONDS
OPEN = frozenset({"pending", "claimed", "waiting", "held"})
ARRIVED = frozenset({"accepted", "delivered", "read"})
MAY_HAVE_ARRIVED = ARRIVED | {"unresolved", "bounced", "complained"}
WITHOUT_REASON = ARRIVED
PERSONAL = re.compile(rb"(?i)" + MARK.encode() + rb"|" + re.escape(PHONES[1:]).encode() + rb"\d{6}")
TRACEBACK = b"Traceback (most recent call last)"


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """A message in the ledger. `claimed_at` in seconds since 1970."""

    ref: str
    campaign: str | None
    trigger: str | None
    recipient: str
    template: str
    state: str
    reason: str | None
    claimed_at: float | None


@dataclass(slots=True)
class Findings:
    """Broken promises as sentences, by kind; each is found once. `unresolved` counts messages."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # ledger and arrivals disagree, a balance or a chain does not hold
    personal: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    unresolved: int = 0
    messages: int = 0
    arrivals: int = 0


class Checker:
    """Looks at everything after each fault, and reports what is new."""

    def __init__(self, program: Program, journal: Journal, consumers: Consumers) -> None:
        self._program, self._journal, self.consumers = program, journal, consumers
        self._arrivals: list[dict[str, Any]] = []
        self._known: set[str] = set()
        self._offsets: dict[Path, int] = {}
        self._unresolved: set[str] = set()
        self._counted = (0, 0)
        self.blind: list[tuple[float, float]] = []
        self.hand_off_seconds_max = 0.0  # measured: from claim to arrival
        self.after_opt_out_seconds_max = 0.0  # measured: from the answer to an opt-out to the last arrival

    def check(self) -> Findings:
        """Every broken promise that was not reported before."""
        lines, arrivals = self._lines(), self._read_arrivals()
        unresolved = {line.ref for line in lines if line.state == "unresolved"}
        before, self._counted = self._counted, (len(lines), len(arrivals))
        found = Findings(
            lost=self._new(self._lost(lines, arrivals)),
            doubled=self._new(self._doubled(lines, arrivals)),
            late=self._new(self._late(lines, arrivals)),
            wrong=self._new(self._wrong(lines, arrivals)),
            personal=self._new(self._personal()),
            tracebacks=list(self._tracebacks()),
            unresolved=len(unresolved - self._unresolved),
            messages=len(lines) - before[0],
            arrivals=len(arrivals) - before[1],
        )
        self._unresolved |= unresolved
        return found

    def _new(self, sentences: Iterator[str]) -> list[str]:
        fresh = [each for each in dict.fromkeys(sentences) if each not in self._known]
        self._known.update(fresh)
        return fresh

    def _lines(self) -> list[LedgerLine]:
        rows = self._program.sql(
            "SELECT concat_ws('-', m.period, m.chunk, m.row, m.leg), c.id, t.key, m.recipient_id,"
            " coalesce(c.spec, t.spec)->>'template', m.state, m.reason, extract(epoch FROM m.claimed_at)::float"
            " FROM messages m LEFT JOIN campaigns c ON c.no = m.campaign_no"
            " LEFT JOIN triggers t ON t.chunk = m.chunk AND m.campaign_no IS NULL"
        )
        return [LedgerLine(*row) for row in rows]

    def _read_arrivals(self) -> list[dict[str, Any]]:
        def read() -> list[dict[str, Any]]:
            return list(self._program.sandbox.log(after=self._arrivals[-1]["seq"] if self._arrivals else 0))

        self._arrivals += repeat(read, "arrivals")
        return self._arrivals

    # -- nothing lost, nothing doubled ---------------------------------------------------------------------------------

    def _lost(self, lines: list[LedgerLine], arrivals: list[dict[str, Any]]) -> Iterator[str]:
        arrived = {row["message_id"] for row in arrivals}
        for line in lines:
            if line.state in OPEN:
                yield f"{line.ref} ({line.campaign or line.trigger}) stays {line.state} ({line.reason})"
            elif line.state in {"failed", "dead"} and line.reason != NOT_TAKEN:
                yield f"{line.ref} is {line.state} ({line.reason}), although no fault lasts as long as its attempts"
            elif line.state in ARRIVED and line.ref not in arrived:
                yield f"{line.ref} is {line.state}, but did not arrive"
            elif line.state not in WITHOUT_REASON and line.reason is None:
                yield f"{line.ref} is {line.state} without a reason"
        for (job,) in self._program.sql(
            "SELECT concat_ws('-', j.period, j.chunk, j.row) FROM jobs j WHERE NOT EXISTS (SELECT FROM messages m"
            " WHERE (m.period, m.chunk, m.row) = (j.period, j.chunk, j.row))"
        ):
            yield f"job {job} has no message"
        campaigns = {campaign for (campaign,) in self._program.sql("SELECT id FROM campaigns")}
        triggers = {key for (key,) in self._program.sql("SELECT key FROM triggers")}
        yield from (f"campaign {each} was accepted and is not in the ledger" for each in self._journal.campaigns.keys() - campaigns)
        yield from (f"trigger {each} was accepted and is not in the ledger" for each in self._journal.triggers.keys() - triggers)
        yield from (f"no answer in time, or a wrong one: {each}" for each in self._journal.unanswered)

    def _doubled(self, lines: list[LedgerLine], arrivals: list[dict[str, Any]]) -> Iterator[str]:
        counts = Counter(row["message_id"] for row in arrivals)
        yield from (f"{ref} arrived {count} times" for ref, count in counts.items() if count > 1)
        per_person: Counter[tuple[str, str]] = Counter()
        for line in lines:
            if line.trigger is not None:
                per_person[line.trigger, line.recipient] += counts[line.ref]
            elif line.campaign is not None:
                kind = self._journal.campaigns.get(line.campaign)
                if kind is not None and kind.couples:
                    per_person[line.campaign, f"couple {self._journal.couples[line.recipient]}"] += counts[line.ref]
                elif kind is not None and "route" not in kind.options and "fallback_after_seconds" not in kind.options:
                    per_person[line.campaign, line.recipient] += counts[line.ref]
        for (origin, who), count in per_person.items():
            if count > 1:
                yield f"{who} got {count} messages of {origin}"

    # -- nothing late ----------------------------------------------------------------------------------------------------

    def _late(self, lines: list[LedgerLine], arrivals: list[dict[str, Any]]) -> Iterator[str]:
        at: dict[str, list[float]] = defaultdict(list)
        for row in arrivals:
            if not any(start <= row["at"] <= end for start, end in self.blind):
                at[row["message_id"]].append(row["at"])
        for line in lines:
            times = at.get(line.ref, ())
            if line.claimed_at is not None and times:
                self.hand_off_seconds_max = max(self.hand_off_seconds_max, max(times) - line.claimed_at)
            if line.template == "loan_offer":  # the acknowledgement of an opt-out follows it
                yield from self._after_opt_out(line, times)
                yield from self._after_end(line, times)

    def _after_opt_out(self, line: LedgerLine, times: Sequence[float]) -> Iterator[str]:
        opt_out = self._journal.opt_outs.get(line.recipient)
        if opt_out is None:
            return
        if line.claimed_at is not None and line.claimed_at > opt_out:
            yield f"{line.ref} was claimed {line.claimed_at - opt_out:.2f} s after the opt-out of {line.recipient} was answered"
        for each in times:
            self.after_opt_out_seconds_max = max(self.after_opt_out_seconds_max, each - opt_out)
            if each > opt_out + BOUND_SECONDS:
                yield f"{line.ref} arrived {each - opt_out:.2f} s after the opt-out of {line.recipient} was answered"

    def _after_end(self, line: LedgerLine, times: Sequence[float]) -> Iterator[str]:
        cancel = self._journal.cancels.get(line.campaign or "")
        for each in times:
            if cancel is not None and each > cancel + BOUND_SECONDS:
                yield f"{line.ref} arrived {each - cancel:.2f} s after the cancel"
            for campaign, start, end in self._journal.pauses:
                if campaign == line.campaign and start + BOUND_SECONDS < each < end:
                    yield f"{line.ref} arrived in a pause"

    # -- the ledger is right ---------------------------------------------------------------------------------------------

    def _wrong(self, lines: list[LedgerLine], arrivals: list[dict[str, Any]]) -> Iterator[str]:
        states = {line.ref: line.state for line in lines}
        for row in arrivals:
            state = states.get(row["message_id"])
            if state is None:
                yield f"{row['message_id']} arrived, and is in no ledger"
            elif state not in MAY_HAVE_ARRIVED:
                yield f"{row['message_id']} arrived, and is {state}"
        yield from repeat(lambda: ledger_audit.verify(self._program.services), "verify")
        yield from self.consumers.errors()
        for (ref,) in self._program.sql(
            "SELECT concat_ws('-', m.period, m.chunk, m.row, m.leg) FROM messages m WHERE m.state = 'unresolved'"
            " AND m.reason = 'worker_lost' AND m.claim_no IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM claim_starts s WHERE s.claim_no = m.claim_no AND NOT s.is_revoked)"
        ):
            yield f"{ref} is unresolved, although its claim was never started"

    # -- logs ------------------------------------------------------------------------------------------------------------

    def _files(self) -> list[Path]:
        home = self._program.home
        valkey = [path for path in (home / "valkey").rglob("*") if path.is_file()]
        node = self._program.node
        rabbitmq = [path for path in node.home.rglob("*") if path.is_file()] if node is not None else []
        return [*(home / "log").glob("*.log"), home / "postgres" / "log", *valkey, *rabbitmq]

    def _personal(self) -> Iterator[str]:
        for path in self._files():
            if match := PERSONAL.search(path.read_bytes()):
                start = match.start()
                yield f"{path.name}: {path.read_bytes()[max(0, start - 80) : start + 40]!r}"

    def _tracebacks(self) -> Iterator[str]:
        for path in (self._program.home / "log").glob("*.log"):
            start = self._offsets.get(path, 0)
            text = path.read_bytes()[start:]
            self._offsets[path] = start + len(text)
            for part in text.split(TRACEBACK)[1:]:
                yield f"{path.name}: {_error(part)}"


def _error(text: bytes) -> str:
    """The error at the end of a traceback, which may be one JSON line of the log with escaped line ends."""
    lines = text.split(b"\n{", 1)[0].replace(b"\\n", b"\n").splitlines()
    errors = [line for line in lines if re.match(rb"[A-Za-z_.]+(:|$)", line)]
    return (errors or lines or [b"?"])[-1].decode(errors="replace").split('"')[0][:160]
