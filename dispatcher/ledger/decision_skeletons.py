"""Decision skeletons: what the decisions of many messages have in common is stored once, and each message stores its values.

A message's decision is a complete document, as all were once, or an array: the skeleton's name with the numbers, then the texts.
`dispatcher.domain.decision_skeleton` writes and expands it. Both forms stay readable; a skeleton is never changed or deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from psycopg.pq import TransactionStatus

from dispatcher.domain.decision_skeleton import SKELETONS_MAX, Skeleton, expand, name_of, skeleton_name
from dispatcher.ledger.connection import Connection

OLDEST_READER = "0046"  # the first revision whose programs read compact records


def name_in(alias: str) -> str:
    """The name of the skeleton that this row's decision needs; NULL where it is a complete document."""
    return f"split_part({alias}.decision->>0, ' ', 1)"


def template_in(alias: str) -> str:
    """The template that this row's decision names; NULL where nothing was decided."""
    return (
        f"coalesce({alias}.decision->'job'->>1,"
        f" (SELECT s.document->'job'->>1 FROM decision_skeletons s WHERE s.name = {name_in(alias)}))"
    )


# In a claim: the skeletons that the ledger lacks. It had them when this process stored them; a restore may have lost them since.
# Counted one by one, which the planner cannot turn into reading the whole table.
ABSENT = """, absent AS MATERIALIZED (
        SELECT FROM unnest(%(skeletons)s::text[]) AS e (name)
        WHERE (SELECT count(*) FROM decision_skeletons s WHERE s.name = e.name) = 0
    )"""


@dataclass(slots=True)
class _Known:
    """What a connection has seen: whether the ledger takes compact records, and skeletons that it has."""

    is_allowed: bool
    names: set[str] = field(default_factory=set)


# By connection: a restore of the ledger cuts all connections, as a rule, and where it does not, the claim notices.
_known: WeakKeyDictionary[Connection, _Known] = WeakKeyDictionary()


def are_allowed(connection: Connection) -> bool:
    """Whether decisions may be written as compact records: not while a program may run that cannot read them."""
    row = connection.execute("SELECT oldest_program >= %s FROM schema_compatibility", (OLDEST_READER,)).fetchone()
    return bool(row and row[0])


def store(connection: Connection, skeletons: Iterable[Skeleton]) -> bool:
    """Store those of these skeletons that the ledger may lack, and commit, before a message uses them.

    Returns False where the ledger takes no compact records; then nothing is stored.
    """
    known = _known.get(connection)
    if known is None:
        known = _Known(are_allowed(connection))
    if known.is_allowed and (new := {each.name: each.document for each in skeletons if each.name not in known.names}):
        _insert(connection, new)
        if len(known.names) + len(new) > SKELETONS_MAX:
            known.names.clear()
        known.names.update(new)
    if connection.info.transaction_status == TransactionStatus.IDLE:  # else a rollback may undo it
        _known[connection] = known
    return known.is_allowed


def forget(connection: Connection) -> None:
    """Forget what the ledger had: it lacks something of it."""
    _known.pop(connection, None)


def _insert(connection: Connection, documents: Mapping[str, str]) -> None:
    """In the order of names, so that two workers with the same new skeletons wait for each other in one direction."""
    names = sorted(documents)
    values = {"names": names, "documents": [documents[name] for name in names]}
    given = "unnest(%(names)s::text[], %(documents)s::text[]) AS e (name, document)"
    connection.execute(
        f"INSERT INTO decision_skeletons (name, document) SELECT e.name, e.document::jsonb FROM {given} ON CONFLICT DO NOTHING",
        values,
    )
    equal = connection.execute(
        f"SELECT FROM {given} JOIN decision_skeletons s ON s.name = e.name AND s.document = e.document::jsonb", values
    ).rowcount
    if equal != len(names):
        raise ValueError("two decision skeletons have the same name")  # nothing is sent with a record that says something else


def expand_all(connection: Connection, decisions: Sequence[Any]) -> list[dict[str, Any]]:
    """The complete documents of these decisions, as they are stored. Raises KeyError where a skeleton is missing."""
    names = {name for each in decisions if (name := skeleton_name(each)) is not None}
    found: dict[str, Any] = {}
    if names:
        rows = connection.execute("SELECT name, document FROM decision_skeletons WHERE name = ANY(%s)", (sorted(names),))
        found.update(rows.fetchall())
    return [dict(each) if (name := skeleton_name(each)) is None else expand(each, found[name]) for each in decisions]


def verify(connection: Connection) -> list[str]:
    """Skeletons that somebody changed, and those that messages name and the ledger lacks; as sentences."""
    stored = connection.execute("SELECT name, document FROM decision_skeletons ORDER BY name")
    changed = [f"decision skeleton {name} was changed" for name, document in stored if name_of(document) != name]
    missing = connection.execute(
        f"""
        SELECT used.name, used.messages FROM (SELECT {name_in("m")} AS name, count(*) AS messages FROM messages m GROUP BY 1) used
        WHERE used.name IS NOT NULL AND NOT EXISTS (SELECT FROM decision_skeletons s WHERE s.name = used.name)
        ORDER BY 1 LIMIT 1000
        """
    )
    return changed + [f"decision skeleton {name} is missing: the decisions of {count} messages need it" for name, count in missing]
