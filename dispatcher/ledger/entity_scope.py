"""The limit to entities in SQL: a list, or a row with a given id, without what belongs to other entities.

None stands for all entities. A row without an entity, such as a message from an unknown number, is for all entities only.
"""

from __future__ import annotations

from dispatcher.domain.principal import Entities


def has_entity(expression: str) -> str:
    """The condition that an expression is one of the entities."""
    return f"(%(entities)s::text[] IS NULL OR {expression} = ANY (%(entities)s::text[]))"


def has_recipient(expression: str) -> str:
    """The condition that an array of ids has a recipient of one of the entities."""
    return f"""(%(entities)s::text[] IS NULL OR EXISTS (
        SELECT FROM recipients r WHERE r.id = ANY ({expression}) AND r.entities && %(entities)s::text[]))"""


def entity_parameter(entities: Entities) -> dict[str, list[str] | None]:
    """The parameter of these conditions."""
    return {"entities": None if entities is None else sorted(entities)}
