"""Values that note what a template asks of them, and what was noted. Pure.

A `TracedValue` stands for one value of a context while a template is followed. Written, it leaves a mark in the text; tested or
compared, it answers for the person at hand and notes question and answer; through a filter, it becomes a value that follows from
it. Python refuses whatever else a template may try with it, and then the template is not followed.
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

# Both cases of a letter and a character that HTML escapes: what changes a text changes a mark, and then it is none any more.
EDGES = "\ue0f0\ue0f1"  # for private use: no text of ours
_MARK = f"{EDGES[0]}<aZ{{}}>{EDGES[1]}"
_MARKS = re.compile(f"{EDGES[0]}(?:(<)aZ([0-9]+)>|&lt;aZ([0-9]+)&gt;){EDGES[1]}")


class Untraceable(Exception):
    """A template did something that can't be followed."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a value comes from a person's values: one of them, then step by step a function with fixed arguments around it."""

    name: str
    steps: tuple[tuple[Callable[..., Any], tuple[Any, ...], tuple[Any, ...]], ...] = ()

    def getter(self) -> Callable[[Values], Any]:
        """The recipe as a function, as quick as may be."""
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
    """What a template asked: whether a value is true (`compare` is None), or how it compares with a constant or another one."""

    left: Derivation
    compare: Callable[[Any, Any], bool] | None = None
    right: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The values that the answer hangs on."""
        return (self.left.name, self.right.name) if isinstance(self.right, Derivation) else (self.left.name,)

    def asker(self) -> Callable[[Values], Any]:
        """The question as a function whose result is true or false."""
        left, compare = self.left.getter(), self.compare
        if compare is None:
            return left
        right = self.right.getter() if isinstance(self.right, Derivation) else lambda _, constant=self.right: constant
        return lambda values: compare(left(values), right(values))


@dataclass(slots=True)
class Trace:
    """What one run of a template asked of a person's values, in order, and what it wrote or worked out."""

    values: Values = field(repr=False)
    answers: dict[Condition, bool] = field(default_factory=dict)
    recipes: dict[Derivation, int] = field(default_factory=dict)  # what was written or worked out -> the number in its mark

    def context(self) -> dict[str, Any]:
        """Traced values in the place of the person's."""
        return {name: TracedValue(self, Derivation(name), value) for name, value in self.values.items()}

    def asked(self, question: Condition) -> bool:
        """The person's answer; noted."""
        if question not in self.answers:
            self.answers[question] = bool(question.asker()(self.values))
        return self.answers[question]

    def number(self, recipe: Derivation) -> int:
        """The recipe's number; noted."""
        return self.recipes.setdefault(recipe, len(self.recipes))

    def mark(self, recipe: Derivation) -> str:
        """What stands in the text for the value of a recipe."""
        return _MARK.format(self.number(recipe))


class TracedValue:
    """One value of a traced context. Not a `str`, whatever it stands for, so that nothing takes it for one unseen."""

    __slots__ = ("_recipe", "_trace", "_value")
    __hash__ = None  # type: ignore[assignment]  # nobody can tell what is made of a hash

    def __init__(self, trace: Trace, recipe: Derivation, value: Any) -> None:
        self._trace, self._recipe, self._value = trace, recipe, value

    def __str__(self) -> str:
        return self._trace.mark(self._recipe)

    def __repr__(self) -> NoReturn:
        raise Untraceable

    def __bool__(self) -> bool:
        return self._trace.asked(Condition(self._recipe))

    def __eq__(self, other: object) -> bool:
        return self._compared(operator.eq, other)

    def __ne__(self, other: object) -> bool:
        return self._compared(operator.ne, other)

    def __lt__(self, other: object) -> bool:
        return self._compared(operator.lt, other)

    def __le__(self, other: object) -> bool:
        return self._compared(operator.le, other)

    def __gt__(self, other: object) -> bool:
        return self._compared(operator.gt, other)

    def __ge__(self, other: object) -> bool:
        return self._compared(operator.ge, other)

    def __contains__(self, other: object) -> bool:
        return self._compared(operator.contains, other)

    def _compared(self, compare: Callable[[Any, Any], bool], other: object) -> bool:
        if isinstance(other, TracedValue):
            return self._trace.asked(Condition(self._recipe, compare, other._recipe))
        if type(other) not in _CONSTANTS or (isinstance(other, str) and any(edge in other for edge in EDGES)):
            raise Untraceable
        return self._trace.asked(Condition(self._recipe, compare, other))

    def derived(self, function: Callable[..., Any], before: tuple[Any, ...], after: tuple[Any, ...]) -> TracedValue:
        """The value that a pure function of this one gives."""
        value = function(*before, self._value, *after)
        if type(value) not in TYPES or any(type(argument) is not str for argument in after):
            raise Untraceable
        recipe = Derivation(self._recipe.name, (*self._recipe.steps, (function, before, after)))
        self._trace.number(recipe)  # whether it is written or not: for another value the function may make an error
        return TracedValue(self._trace, recipe, value)


@lru_cache(maxsize=4)
def tracing_environment(env: jinja2.Environment) -> jinja2.Environment:
    """The same environment, whose templates take traced values too; it compiles templates of its own."""
    overlay = env.overlay()
    overlay.filters = {
        **env.filters,
        **{name: _traced_filter(name, env.filters[name]) for name in DERIVING_FILTERS & set(env.filters)},
    }
    return overlay


def _traced_filter(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, which gives for a traced value a traced one."""

    @wraps(filter_)  # keeps Jinja's note of whether the filter wants the context
    def followed(*arguments: Any, **named: Any) -> Any:
        if not any(isinstance(argument, TracedValue) for argument in (*arguments, *named.values())):
            return filter_(*arguments, **named)
        before: tuple[Any, ...] = ()
        function = filter_
        if name in LANGUAGE_FILTERS:
            context, *rest = arguments
            before, function, arguments = (context.get("language"),), LANGUAGE_FILTERS[name], tuple(rest)
        if named or before == (None,) or not isinstance(arguments[0], TracedValue):
            raise Untraceable
        return arguments[0].derived(function, before, arguments[1:])

    return followed


def split_at_marks(text: str) -> Iterator[tuple[str, int, bool]]:
    """A traced text in pieces: (the words before a mark, the number in the mark, whether it was escaped), and at last (words, -1,
    False). Raises Lost where a mark has suffered.
    """
    end = 0
    for found in _MARKS.finditer(text):
        yield _checked_words(text[end : found.start()]), int(found[2] or found[3]), found[1] is None
        end = found.end()
    yield _checked_words(text[end:]), -1, False


def _checked_words(text: str) -> str:
    if any(edge in text for edge in EDGES):
        raise Untraceable
    return text
