"""The table of a run: faults and how often each promise was broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.checks import Findings

COLUMNS = ("fault", "times", "messages", "lost", "doubled", "late", "wrong", "unresolved", "tracebacks", "seconds to recover")


@dataclass(frozen=True, slots=True)
class Round:
    """Some faults (usually one), and what was found after them. `recover_seconds` is the longest; None: not in time."""

    faults: tuple[str, ...]
    recover_seconds: float | None
    recover_seconds_max: float
    unresolved_max: int
    errors: tuple[str, ...]
    findings: Findings

    def broken(self) -> list[str]:
        """Every broken promise as a sentence."""
        found = self.findings
        sentences = [*self.errors]
        for kind in ("lost", "doubled", "late", "wrong", "personal", "tracebacks"):
            sentences += [f"{kind}: {each}" for each in getattr(found, kind)]
        if found.unresolved > self.unresolved_max:
            sentences.append(f"unresolved: {found.unresolved}, at most {self.unresolved_max} are allowed")
        if self.recover_seconds is None or self.recover_seconds > self.recover_seconds_max:
            seconds = "never" if self.recover_seconds is None else f"{self.recover_seconds:.1f} s"
            sentences.append(f"recovery: {seconds}, at most {self.recover_seconds_max:g} s are allowed")
        return [f"{' + '.join(self.faults)}: {each}" for each in sentences]


@dataclass(slots=True)
class Report:
    """A whole run."""

    seed: int
    rounds: list[Round] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def broken(self) -> list[str]:
        """Every broken promise of the run."""
        return [each for one in self.rounds for each in one.broken()]

    def rows(self) -> list[tuple[str, ...]]:
        """One row for each fault, and a sum."""
        names = dict.fromkeys(" + ".join(one.faults) for one in self.rounds)
        rows = [_row(name, [one for one in self.rounds if " + ".join(one.faults) == name]) for name in sorted(names)]
        return [*rows, _row("all", self.rounds)]

    def table(self) -> str:
        """The table in Markdown."""
        lines = [COLUMNS, ("---",) + ("--:",) * (len(COLUMNS) - 1), *self.rows()]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def plain(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        rounds = [{**asdict(one), "broken": one.broken()} for one in self.rounds]
        return {"seed": self.seed, "measured": self.measured, "notes": self.notes, "rounds": rounds, "broken": self.broken()}


def _row(name: str, rounds: Sequence[Round]) -> tuple[str, ...]:
    found = [one.findings for one in rounds]
    seconds = [one.recover_seconds for one in rounds]
    times = sum(len(one.faults) for one in rounds)
    counts = [sum(len(getattr(each, kind)) for each in found) for kind in ("lost", "doubled", "late", "wrong")]
    known = [each for each in seconds if each is not None]
    span = " to ".join(sorted({f"{min(known):.1f}", f"{max(known):.1f}"}, key=float)) if known else ""
    recovery = ", ".join(filter(None, (span, "never" if None in seconds else "")))
    messages, unresolved = sum(each.messages for each in found), sum(each.unresolved for each in found)
    tracebacks = sum(len(each.tracebacks) for each in found)
    return (name, str(times), str(messages), *map(str, counts), str(unresolved), str(tracebacks), recovery)
