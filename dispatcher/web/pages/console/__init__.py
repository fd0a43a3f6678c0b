"""The console's pages: always escaped, nothing undefined let through."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import State
from dispatcher.ledger.campaigns.balance import Balance
from dispatcher.web.console import labels

FOLDER = Path(__file__).parent

# From what went well over what is under way to what will never leave: the order of a bar's pieces and of the table beside it.
ORDER = (
    *(State.READ, State.DELIVERED, State.ACCEPTED, State.CLAIMED, State.PENDING, State.HELD, State.WAITING, State.UNRESOLVED),
    *(State.COMPLAINED, State.BOUNCED, State.FAILED, State.DEAD, State.EXPIRED, State.CANCELLED, State.HELD_OUT, State.REFUSED),
)


def page(name: str, **values: Any) -> str:
    """A page by its file's name."""
    return _environment.get_template(name).render(values)


def pieces(balance: Balance) -> list[tuple[State, int, float, float]]:
    """A balance as the pieces of a bar: state, count, and where it begins and how long it is, in per cent of the audience."""
    total = sum(balance.states.values())
    found, begins = [], 0.0
    for state in ORDER:
        count = balance.states.get(state, 0)
        if count:
            length = 100 * count / total
            found.append((state, count, round(begins, 6), round(length, 6)))
            begins += length
    return found


def number(value: float | None) -> str:
    """A count or rate, with thin spaces between thousands."""
    return "–" if value is None else f"{value:,}".replace(",", "\u202f")


def percent(count: int, total: int) -> str:
    """A share; what is there at all is never shown as nothing."""
    share = 100 * count / total if total else 0.0
    return "< 0.1 %" if 0 < share < 0.1 else f"{share:.1f} %"


def when(at: datetime | None) -> str:
    """A moment, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else "–"


_environment = Environment(
    loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_environment.filters.update(number=number, when=when, pieces=pieces)
_environment.globals.update(
    percent=percent, order=ORDER, states=labels.STATES, reason_words=labels.reason, campaign_states=labels.CAMPAIGN_STATES
)
_environment.globals["CampaignState"] = CampaignState
