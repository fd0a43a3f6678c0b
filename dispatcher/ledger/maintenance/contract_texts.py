"""The texts of all versions of the contract that were ever in use: the evidence of what a customer accepted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from dispatcher.ledger.connection import Connection

_STORE = """
INSERT INTO contract_texts (version, entity, language, digest, body, stored_at)
SELECT version, entity, language, digest, body, %(now)s
FROM unnest(%(versions)s::text[], %(entities)s::text[], %(languages)s::text[], %(digests)s::text[], %(bodies)s::text[])
    AS t (version, entity, language, digest, body)
ON CONFLICT DO NOTHING
"""


def store(connection: Connection, texts: Sequence[tuple[str, str, str, str, str]], now: datetime) -> None:
    """Store the texts that are not there yet: version, entity, language, digest and body of each. None is ever replaced."""
    names = ("versions", "entities", "languages", "digests", "bodies")
    columns = {name: list(column) for name, column in zip(names, zip(*texts, strict=True), strict=True)}
    connection.execute(_STORE, {**columns, "now": now})


def rewritten(connection: Connection) -> list[tuple[str, str, str]]:
    """Version, entity and language of the texts that were changed in place, so that it is not certain what a customer read."""
    rows = connection.execute(
        "SELECT version, entity, language FROM contract_texts"
        " GROUP BY version, entity, language HAVING count(*) > 1 ORDER BY version, entity, language"
    )
    return [(version, entity, language) for version, entity, language in rows]
