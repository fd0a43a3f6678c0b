"""What a migration locks, and what of it the previous version of the program would not survive: read from its SQL.

`dispatcher check --before-upgrade` shows it, and a test holds each new migration to the rule "expand, then contract". Statements
that SQL functions build at run time are not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

# Tables with millions of rows: a lock that lasts as long as their rows are read or written stops the program for minutes.
LARGE = frozenset(
    {
        "messages",
        "jobs",
        "chunks",
        "provider_events",
        "recipients",
        "consent_events",
        "cap_reservations",
        "published_events",
        "audit_log",
    }
)


class Lock(StrEnum):
    """What waits while the migration runs."""

    ALL = "reads and writes"
    WRITES = "writes"
    ROWS = "writes to the changed rows"


@dataclass(frozen=True, slots=True)
class SchemaEffect:
    """The effect of one statement on a table that exists. `breaks`: why the previous version could fail, if it could."""

    table: str
    lock: Lock
    breaks: str = ""
    is_long: bool = False  # it reads or writes all rows of a large table


_FUNCTION_BODY = re.compile(r"(CREATE (?:OR REPLACE )?FUNCTION [^$]*)\$\$.*?\$\$", re.DOTALL)
_CREATED = re.compile(r"CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+)")
_BREAKING = (
    (re.compile(r"\bRENAME\b"), "renames what it uses"),
    (re.compile(r"\bDROP (?!NOT NULL|CONSTRAINT|EXPRESSION|IDENTITY)"), "removes what it uses"),
    (re.compile(r"\bSET NOT NULL\b"), "it may write NULL"),
    (re.compile(r"\bALTER (?:COLUMN )?\w+ (?:SET DATA )?TYPE\b"), "changes a type"),
    (re.compile(r"\bADD (?:COLUMN )?(?:IF NOT EXISTS )?(?!CONSTRAINT)\w+ (?:(?!\bDEFAULT\b|\bGENERATED\b|, ADD\b).)*\bNOT NULL\b"
                r"(?!(?:(?!, ADD\b).)*(?:\bDEFAULT\b|\bGENERATED\b))"), "its rows lack the column"),
    (re.compile(r"\bADD (?:CONSTRAINT \w+ )?(?:CHECK|UNIQUE|PRIMARY KEY|FOREIGN KEY|EXCLUDE)\b"), "its rows may not fit"),
)  # fmt: skip
_REWRITES = re.compile(r"\bTYPE\b|\bSET NOT NULL\b|\bADD (?:CONSTRAINT \w+ )?(?:CHECK|FOREIGN KEY)\b(?!.*NOT VALID)|\bGENERATED\b")


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration. `oldest_program`: the newest revision that the oldest program knows that can go on after it; `compatible`: why
    the previous version goes on although a statement looks as if it could not. Most migrations need neither."""

    revision: str
    about: str
    effects: tuple[SchemaEffect, ...]
    oldest_program: str = ""
    compatible: str = ""

    @property
    def breaks(self) -> bool:
        """Whether programs before `oldest_program` could fail."""
        return not self.compatible and any(effect.breaks for effect in self.effects)


def read_migration(file: Path) -> Migration:
    """Read a migration without running it. Its effects are those on tables that it does not create itself, in its order."""
    text = file.read_text(encoding="utf-8")
    sql = _FUNCTION_BODY.sub(r"\1", re.sub(r"--[^\n]*", "", text))  # a body runs when the function is called
    statements = [" ".join(part.split()) for part in re.split(r';|"""', sql)]
    created = {name for statement in statements for name in _CREATED.findall(statement)}
    found = (effect for statement in statements for effect in _effects(statement))
    about = text.removeprefix('"""').partition('"""')[0].strip().partition("\n\n")[0]
    return Migration(
        revision=file.name[:4],
        about=" ".join(about.split()),
        effects=tuple(effect for effect in found if effect.table not in created),
        oldest_program=_attribute(text, "oldest_program"),
        compatible=_attribute(text, "compatible"),
    )


def _attribute(text: str, name: str) -> str:
    match = re.search(rf'^{name} = "([^"]+)"', text, re.MULTILINE)
    return match[1] if match else ""


def _effects(statement: str) -> Iterator[SchemaEffect]:
    if match := re.search(r"\bALTER TABLE (?:IF EXISTS )?(?:ONLY )?(\w+) (.+)", statement):
        table, action = match.groups()
        breaks = next((why for pattern, why in _BREAKING if pattern.search(action)), "")
        yield SchemaEffect(table, Lock.ALL, breaks, is_long=table in LARGE and bool(_REWRITES.search(action)))
    elif match := re.search(r"\bDROP (?:TABLE|VIEW|FUNCTION|TYPE|SEQUENCE) (?:IF EXISTS )?(\w+)", statement):
        yield SchemaEffect(match[1], Lock.ALL, "removes what it uses")
    elif match := re.search(r"\bCREATE (UNIQUE )?INDEX (?:IF NOT EXISTS )?\w+ ON (?:ONLY )?(\w+)", statement):
        yield SchemaEffect(match[2], Lock.WRITES, "its rows may not fit" if match[1] else "", is_long=match[2] in LARGE)
    elif match := re.search(r"\bCREATE (?:OR REPLACE )?TRIGGER .*? ON (\w+)", statement):
        yield SchemaEffect(match[1], Lock.WRITES)
    elif match := re.search(r"\bREVOKE .+? ON (?:TABLE )?(?!FUNCTION\b)(\w+)", statement):
        yield SchemaEffect(match[1], Lock.ROWS, "takes a right")
    elif match := re.match(r"(?:UPDATE|DELETE FROM) (?:ONLY )?(\w+) ", statement):
        yield SchemaEffect(match[1], Lock.ROWS, is_long=match[1] in LARGE)
