"""Values that record how a template uses them. Pure.

A `TracedValue` replaces one value of a context while a template is traced. In output it leaves a mark in the text. A test or
comparison returns the real answer and records the condition with it. A filter returns a derived traced value. Any other
operation raises an error, and then the template is not traced.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import lru_cache, partial, wraps
from typing import Any, NoReturn, TypeAlias

import jinja2

from dispatcher.content.environment import LANGUAGE_FILTERS
from dispatcher.content.specialiser.syntax_check import DERIVING_FILTERS

Values: TypeAlias = Mapping[str, Any]  # of one person, by name; all of TYPES
TYPES = frozenset({str, int, Decimal, date})  # exactly: a subclass, such as Markup, may behave otherwise
_CONSTANTS = TYPES | {bool, float, type(None)}

# A mark has letters of both cases and a character that HTML escapes: an operation that changes a text also breaks a mark.
EDGES = "\ue0f0\ue0f1"  # of Unicode's private use area: they do not occur in texts
_MARK = f"{EDGES[0]}<aZ{{}}>{EDGES[1]}"
_MARKS = re.compile(f"{EDGES[0]}(?:(<)aZ([0-9]+)>|&lt;aZ([0-9]+)&gt;){EDGES[1]}")


class Untraceable(Exception):
    """A template did something that cannot be traced."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a value is derived: one of the person's values by name, then functions with fixed arguments, step by step."""

    name: str
    steps: tuple[tuple[Callable[..., Any], tuple[Any, ...], tuple[Any, ...]], ...] = ()

    def getter(self) -> Callable[[Values], Any]:
        """The derivation as a fast function."""
        get: Callable[[Values], Any] = operator.itemgetter(self.name)
        for function, before, after in self.steps:
            get = partial(_step, get, function, before, after) if after else partial(_plain_step, get, partial(function, *before))
        return get


def _step(
    get: Callable[[Values], Any], function: Callable[..., Any], before: tuple[Any, ...], after: tuple[Any, ...], values: Values
) -> Any:
    return function(*before, get(values), *after)


def _plain_step(get: Callable[[Values], Any], function: Callable[[Any], Any], values: Values) -> Any:
    return function(get(values))


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a template: a value is true (`compare` is None), or compares with a constant or another value."""

    left: Derivation
    compare: Callable[[Any, Any], bool] | None = None
    right: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the values on which the answer depends."""
        return (self.left.name, self.right.name) if isinstance(self.right, Derivation) else (self.left.name,)

    def evaluator(self) -> Callable[[Values], Any]:
        """The condition as a function; its result is true or false."""
        left, compare = self.left.getter(), self.compare
        if compare is None:
            return left
        right = self.right.getter() if isinstance(self.right, Derivation) else lambda _, constant=self.right: constant
        return lambda values: compare(left(values), right(values))


@dataclass(slots=True)
class Trace:
    """A record of one run of a template: the conditions in order, with their answers, and the derived values."""

    values: Values = field(repr=False)
    answers: dict[Condition, bool] = field(default_factory=dict)
    derivations: dict[Derivation, int] = field(default_factory=dict)  # -> the number in its mark

    def context(self) -> dict[str, Any]:
        """Traced values in place of the person's values."""
        return {name: TracedValue(self, Derivation(name), value) for name, value in self.values.items()}

    def evaluate(self, condition: Condition) -> bool:
        """The answer for the person's values; recorded."""
        if condition not in self.answers:
            self.answers[condition] = bool(condition.evaluator()(self.values))
        return self.answers[condition]

    def number(self, derivation: Derivation) -> int:
        """The number of a derivation; recorded."""
        return self.derivations.setdefault(derivation, len(self.derivations))

    def mark(self, derivation: Derivation) -> str:
        """The mark in the text for a derived value."""
        return _MARK.format(self.number(derivation))


class TracedValue:
    """One value of a traced context. It is never a `str`, so that no code can use it as one without a trace."""

    __slots__ = ("_derivation", "_trace", "_value")
    __hash__ = None  # type: ignore[assignment]  # the use of a hash cannot be traced

    def __init__(self, trace: Trace, derivation: Derivation, value: Any) -> None:
        self._trace, self._derivation, self._value = trace, derivation, value

    def __str__(self) -> str:
        return self._trace.mark(self._derivation)

    def __repr__(self) -> NoReturn:
        raise Untraceable

    def __bool__(self) -> bool:
        return self._trace.evaluate(Condition(self._derivation))

    def __eq__(self, other: object) -> bool:
        return self._compare(operator.eq, other)

    def __ne__(self, other: object) -> bool:
        return self._compare(operator.ne, other)

    def __lt__(self, other: object) -> bool:
        return self._compare(operator.lt, other)

    def __le__(self, other: object) -> bool:
        return self._compare(operator.le, other)

    def __gt__(self, other: object) -> bool:
        return self._compare(operator.gt, other)

    def __ge__(self, other: object) -> bool:
        return self._compare(operator.ge, other)

    def __contains__(self, other: object) -> bool:
        return self._compare(operator.contains, other)

    def _compare(self, compare: Callable[[Any, Any], bool], other: object) -> bool:
        if isinstance(other, TracedValue):
            return self._trace.evaluate(Condition(self._derivation, compare, other._derivation))
        if type(other) not in _CONSTANTS or (isinstance(other, str) and any(edge in other for edge in EDGES)):
            raise Untraceable
        return self._trace.evaluate(Condition(self._derivation, compare, other))

    def derive(self, function: Callable[..., Any], before: tuple[Any, ...], after: tuple[Any, ...]) -> TracedValue:
        """The result of a pure function of this value."""
        value = function(*before, self._value, *after)
        if type(value) not in TYPES or any(type(argument) is not str for argument in after):
            raise Untraceable
        derivation = Derivation(self._derivation.name, (*self._derivation.steps, (function, before, after)))
        self._trace.number(derivation)  # even if it is not in the output: for another value the function may raise
        return TracedValue(self._trace, derivation, value)


@lru_cache(maxsize=4)
def tracing_environment(env: jinja2.Environment) -> jinja2.Environment:
    """The same environment with filters that accept traced values. It compiles its own templates."""
    overlay = env.overlay()
    overlay.filters = {
        **env.filters,
        **{name: _traced_filter(name, env.filters[name]) for name in DERIVING_FILTERS & set(env.filters)},
    }
    return overlay


def _traced_filter(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, which returns a traced value for a traced value."""

    @wraps(filter_)  # keeps Jinja's attribute that says whether the filter takes the context
    def traced(*arguments: Any, **named: Any) -> Any:
        if not any(isinstance(argument, TracedValue) for argument in (*arguments, *named.values())):
            return filter_(*arguments, **named)
        before: tuple[Any, ...] = ()
        function = filter_
        if name in LANGUAGE_FILTERS:
            context, *rest = arguments
            before, function, arguments = (context.get("language"),), LANGUAGE_FILTERS[name], tuple(rest)
        if named or before == (None,) or not isinstance(arguments[0], TracedValue):
            raise Untraceable
        return arguments[0].derive(function, before, arguments[1:])

    return traced


def split_at_marks(text: str) -> Iterator[tuple[str, int, bool]]:
    """A traced text in pieces: (text before a mark, the number in the mark, whether it was escaped), and at the end
    (text, -1, False). Raises `Untraceable` if a mark is damaged.
    """
    end = 0
    for match in _MARKS.finditer(text):
        yield _checked_words(text[end : match.start()]), int(match[2] or match[3]), match[1] is None
        end = match.end()
    yield _checked_words(text[end:]), -1, False


def _checked_words(text: str) -> str:
    if any(edge in text for edge in EDGES):
        raise Untraceable
    return text
