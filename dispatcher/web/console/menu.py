"""The entries of the console's menu: each person sees those that their rights open."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.domain.principal import Principal, Right

Rights = frozenset[Right]
ALL: Sequence[Rights] = (frozenset(),)
# Pages about other systems open for everybody; in the menu they would only be in the way of those who make or approve campaigns.
TECHNICAL: Sequence[Rights] = tuple(frozenset({right}) for right in (Right.METRICS, Right.OPERATE, Right.WEBHOOKS, Right.AUDIT))
# Path, label, and the sets of rights of which a person has to have one.
ENTRIES: Sequence[tuple[str, str, Sequence[Rights]]] = (
    ("/console", "Campaigns", ALL),
    ("/console/campaigns/new", "New campaign", (frozenset({Right.CAMPAIGNS}),)),
    ("/console/calendar", "Calendar", ALL),
    ("/console/schedules", "Recurring", ALL),
    ("/console/desk", "Desk", (frozenset({Right.PEOPLE, Right.PREFERENCES}),)),
    ("/console/people", "People", (frozenset({Right.PEOPLE}),)),
    ("/console/inbound-messages", "Inbound", (frozenset({Right.INBOUND}),)),
    ("/console/unresolved", "Unresolved", (frozenset({Right.PEOPLE}),)),
    ("/console/refused-jobs", "Refused jobs", TECHNICAL),
    ("/console/templates", "Templates", ALL),
    ("/console/webhooks", "Webhooks", TECHNICAL),
    ("/console/operations", "Operations", ALL),
    ("/console/audit", "Audit log", (frozenset({Right.AUDIT}),)),
)

OF_ALL_ENTITIES = frozenset({"/console/refused-jobs", "/console/webhooks"})  # nothing for somebody who is limited to some


def menu(principal: Principal) -> Sequence[tuple[str, str]]:
    """Path and label of each page that this person may open, in order."""
    may_open = [(path, label) for path, label, sets in ENTRIES if any(rights <= principal.rights for rights in sets)]
    return [(path, label) for path, label in may_open if principal.entities is None or path not in OF_ALL_ENTITIES]
