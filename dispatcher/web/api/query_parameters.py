"""Query parameters that a route does not have are refused: a caller who writes `?dry_run=true` must not send a campaign."""

from __future__ import annotations

from collections import Counter

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from dispatcher.intake.errors import BadInput, InputError


async def known_query_parameters(request: Request) -> None:
    """A dependency: raises `BadInput` for query parameters that the route does not have, or that occur twice."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    if not counts:
        return
    route: APIRoute = request.scope["route"]
    known = _names(route.dependant)
    errors = [InputError("query", 0, name, _unknown_text(known)) for name in sorted(counts.keys() - known)]
    errors += [InputError("query", 0, name, "occurs twice") for name in sorted(known) if counts[name] > 1]
    if errors:
        raise BadInput(*errors)


def _names(dependant: Dependant) -> set[str]:
    """The query parameters of a route and of its dependencies."""
    return {field.alias for field in dependant.query_params}.union(*(_names(each) for each in dependant.dependencies))


def _unknown_text(known: set[str]) -> str:
    choice = f"it has {', '.join(sorted(known))}" if known else "it has none"
    return f"is no query parameter of this call; {choice}"
