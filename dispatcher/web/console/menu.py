"""The entries of the console's menu: each person sees those that their rights open."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.domain.principal import Principal, Right

ENTRIES: Sequence[tuple[str, str, frozenset[Right]]] = (
    ("/console", "Campaigns", frozenset()),
    ("/console/campaigns/new", "New campaign", frozenset({Right.CAMPAIGNS})),
    ("/console/calendar", "Calendar", frozenset()),
    ("/console/schedules", "Recurring", frozenset()),
    ("/console/desk", "Desk", frozenset({Right.PEOPLE, Right.PREFERENCES})),
    ("/console/people", "People", frozenset({Right.PEOPLE})),
    ("/console/inbound-messages", "Inbound", frozenset({Right.INBOUND})),
    ("/console/unresolved", "Unresolved", frozenset({Right.PEOPLE})),
    ("/console/refused-jobs", "Refused jobs", frozenset()),
    ("/console/templates", "Templates", frozenset()),
    ("/console/webhooks", "Webhooks", frozenset()),
    ("/console/operations", "Operations", frozenset()),
    ("/console/audit", "Audit log", frozenset({Right.AUDIT})),
)

OF_ALL_ENTITIES = frozenset({"/console/refused-jobs", "/console/webhooks"})  # nothing for somebody who is limited to some


def menu(principal: Principal) -> Sequence[tuple[str, str]]:
    """Path and label of each page that this person may open, in order."""
    may_open = [(path, label) for path, label, rights in ENTRIES if all(principal.may(right) for right in rights)]
    return [(path, label) for path, label in may_open if principal.entities is None or path not in OF_ALL_ENTITIES]
