"""A link to a partner must be the same for everybody: else the partner knows who comes.

A check of single messages cannot see that: `/r/c-5` looks like any path. So the links of a whole audience are compared. A trigger
has no audience to compare with: its links must be some that its template lists, and that a person has approved with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from dispatcher.content import Template, partner_links
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.campaigns.audience import AudienceError, AudienceRow
from dispatcher.policy.data import Entity

ROWS_SHOWN, ROWS_AHEAD = 20, 10_000  # how many rows an error names, and how far it looks for them


class PartnerLinks:
    """The links to partners of one campaign, as its first rows have them: variable -> (line, links)."""

    def __init__(self, entity: Entity | None, file: str) -> None:
        self._partners: Mapping[str, frozenset[str]] = entity.partners if entity else {}
        self._file = file
        self._links: dict[str, tuple[int | None, tuple[str, ...]]] = {}
        self._last: dict[str, Any] = {}  # most rows have the same value

    def compare_with(self, stored: Iterable[Mapping[str, Any]]) -> None:
        """Take the links of the rows that the campaign has already: those that follow are compared with them."""
        for data in stored if self._partners else ():
            for name, value in data.items():
                if value != self._last.get(name) and (links := partner_links(value, self._partners)):
                    self._last[name] = value
                    self._links.setdefault(name, (None, links))

    def checked(self, rows: Iterable[AudienceRow | AudienceError]) -> Iterator[AudienceRow | AudienceError]:
        """The rows. Raises BadInput at the first with another link, and names some more of them."""
        rows = iter(rows)
        for row in rows:
            errors = list(self._differences(row)) if self._partners else []
            if errors:
                more = (error for each in islice(rows, ROWS_AHEAD) for error in self._differences(each))
                raise BadInput(*islice((*errors, *islice(more, ROWS_SHOWN)), ROWS_SHOWN))
            yield row

    def _differences(self, row: AudienceRow | AudienceError) -> Iterator[InputError]:
        if not isinstance(row, AudienceRow):
            return
        for name, value in row.data.items():
            if value == self._last.get(name):
                continue
            if not (links := partner_links(value, self._partners)):
                continue
            line, first = self._links.setdefault(name, (row.line, links))
            if links == first:
                self._last[name] = value
            else:
                others = "the rows that the campaign has" if line is None else f"line {line}" if line else "the first row"
                message = f"is another link than that of {others}: a link to a partner must be the same for everybody"
                yield InputError(self._file, row.line, f"data.{name}", message)


def unlisted_links(data: Mapping[str, Any], template: Template, entity: Entity | None) -> Iterator[tuple[str, str]]:
    """The variables of a trigger with a link to a partner that its template does not list, each with what is wrong."""
    partners = entity.partners if entity else {}
    for name, value in data.items():
        if template.has_unlisted_link(name, value, partners):
            yield name, f"a trigger's link to a partner must be one that the template lists in variables.{name}.links"
