"""A link to a partner must be the same for everybody in a campaign: else the partner knows who comes.

A check of single messages cannot see that: `/r/c-5` looks like any path. So the links of the whole audience are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from dispatcher.content import Template, host_of, is_within, without_parameters
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.campaigns.audience import AudienceError, AudienceRow
from dispatcher.policy.data import Entity

ROWS_SHOWN, ROWS_AHEAD = 20, 10_000  # how many rows an error names, and how far it looks for them


class PartnerLinks:
    """The links to partners of one campaign, as its first rows have them: variable -> (line, link)."""

    def __init__(self, templates: Sequence[Template], entity: Entity | None, file: str) -> None:
        names = [name for template in templates for name, variable in template.variables.items() if variable.type == "url"]
        self._partners: Mapping[str, frozenset[str]] = entity.partners if entity else {}
        self._names = list(dict.fromkeys(names)) if self._partners else []
        self._file = file
        self._links: dict[str, tuple[int, str]] = {}
        self._last: dict[str, str] = {}  # most rows have the same value

    def prime(self, rows: Iterable[AudienceRow | AudienceError]) -> None:
        """Take the links of rows that an earlier step has checked."""
        for row in rows if self._names else ():
            list(self._differences(row))
            if len(self._links) == len(self._names):
                return

    def checked(self, rows: Iterable[AudienceRow | AudienceError]) -> Iterator[AudienceRow | AudienceError]:
        """The rows. Raises BadInput at the first with another link, and names some more of them."""
        rows = iter(rows)
        for row in rows:
            errors = list(self._differences(row)) if self._names else []
            if errors:
                more = (error for each in islice(rows, ROWS_AHEAD) for error in self._differences(each))
                raise BadInput(*islice((*errors, *islice(more, ROWS_SHOWN)), ROWS_SHOWN))
            yield row

    def _differences(self, row: AudienceRow | AudienceError) -> Iterator[InputError]:
        if not isinstance(row, AudienceRow):
            return
        for name in self._names:
            value = row.data.get(name)
            if value == self._last.get(name) or not isinstance(value, str) or not is_within(host_of(value), self._partners):
                continue
            same_for_all = without_parameters(value, self._partners, host_of(value))
            line, link = self._links.setdefault(name, (row.line, same_for_all))
            if same_for_all == link:
                self._last[name] = value
            else:
                first = f"line {line}" if line else "the first row"
                message = f"is another link than that of {first}: a link to a partner must be the same for everybody"
                yield InputError(self._file, row.line, f"data.{name}", message)
