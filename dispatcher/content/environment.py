"""The Jinja environment of a catalog: small, sandboxed, strict, and without features that can run for long.

A template may use tests, conditions, loops over a list written in the template, macros and a dozen filters. It has no
functions, no attributes of values, no `range`, no string multiplication. This prevents accidents and overly clever
templates; reviews control who may write templates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from io import StringIO
from types import MappingProxyType
from typing import Any

from jinja2 import BytecodeCache, Environment, FunctionLoader, StrictUndefined, Undefined, nodes, pass_context
from jinja2.bccache import Bucket
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import FilterArgumentError, SecurityError, UndefinedError
from jinja2.filters import FILTERS
from jinja2.idtracking import VAR_LOAD_RESOLVE
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup, escape

from dispatcher.content import formats

_FILTERS = ("capitalize", "d", "default", "first", "join", "last", "length", "lower", "trim", "upper")
_SPECIAL = re.compile("[&<>'\"]")  # what HTML escapes
LANGUAGE_FILTERS: Mapping[str, Callable[..., str]] = {  # filters that format a value for the message's language
    "money": formats.money,
    "number": formats.number,
    "percent": formats.percent,
    "plural": formats.plural,
    "date": formats.day,
}


class MissingVariable(UndefinedError):
    """A text uses a declared variable that has no value; the message is its name."""


class WithheldVariable(UndefinedError):
    """A text uses a variable whose data category the decision does not allow; the message is its name."""


class _OptionalUndefined(StrictUndefined):
    """An optional variable without a value: false in a test, equal to nothing, but an error in output or arithmetic."""

    __slots__ = ()
    __hash__ = Undefined._fail_with_undefined_error

    def __bool__(self) -> bool:  # type: ignore[override]  # Jinja's strict kind never returns
        return False

    def __eq__(self, other: object) -> bool:  # type: ignore[override]
        return False

    def __ne__(self, other: object) -> bool:  # type: ignore[override]
        return True


def missing_value(name: str, error: type[UndefinedError], *, required: bool) -> StrictUndefined:
    """The value in a context of a variable that has none. Raises `error` when a text uses it."""
    return (StrictUndefined if required else _OptionalUndefined)(hint=name, name=name, exc=error)


class BytecodeStore(BytecodeCache):
    """Compiled templates. An overlay of an environment reuses them: compiling again would take longer than a trigger may."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], Any] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """See Jinja."""
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """See Jinja."""
        self._codes[bucket.key, bucket.checksum] = bucket.code


class _Generator(CodeGenerator):
    """Jinja's code generator, with a faster function for what a text writes."""

    def write_commons(self) -> None:
        """See Jinja. `escape` is the name by which the code calls what escapes a value."""
        super().write_commons()
        self.writeline("escape = environment.escape_output")


class _NamesGenerator(_Generator):
    """Jinja's code generator, with a note of each name that the code resolves in its context."""

    stream: StringIO

    def __init__(self, environment: Environment, name: str, filename: str) -> None:
        super().__init__(environment, name, filename)
        self.names: set[str] = set()

    def enter_frame(self, frame: Frame) -> None:
        """See Jinja."""
        super().enter_frame(frame)
        self.names.update(str(name) for action, name in frame.symbols.loads.values() if action == VAR_LOAD_RESOLVE)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Denies by default: attributes only of the loop, calls only of macros and blocks, arithmetic only with numbers."""

    bytecode_cache: BytecodeStore
    code_generator_class = _Generator
    context_names: Mapping[str, frozenset[str]] = MappingProxyType({})  # what shared sources read from their context

    # `*`, `**` and `%` can expand a short text to gigabytes. Jinja does not fold intercepted operators at compile time either.
    intercepted_binops = frozenset({"*", "**", "%"})

    def compile_source(self, name: str, source: str, tree: nodes.Template) -> frozenset[str]:
        """Compile a source and keep its code, so that a template of it is not compiled again. Returns the names that it reads from
        its context, as `jinja2.meta` finds them: its own search would generate the code a second time."""
        generator = _NamesGenerator(self, name, name)
        generator.visit(tree)
        bucket = self.bytecode_cache.get_bucket(self, name, name, source)
        bucket.code = self._compile(generator.stream.getvalue(), name)
        self.bytecode_cache.set_bucket(bucket)
        return frozenset(generator.names)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An item of a context's dict, such as `theme.ink`, without Jinja's search for an attribute first: a mail has sixty."""
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    @staticmethod
    def escape_output(value: Any) -> str:
        """The same text as `escape`, not always as `Markup`: what a text writes is joined at once."""
        if type(value) is str:
            return escape(value) if _SPECIAL.search(value) else value
        return value if type(value) is Markup else escape(value)

    def call(self, context: Context, obj: Any, /, *arguments: Any, **named: Any) -> Any:
        """Call a macro without Jinja's search for what it might want to be passed: a mail calls thirty. See Jinja."""
        if type(obj) is not Macro:
            return super().call(context, obj, *arguments, **named)
        named.pop("_loop_vars", None)
        named.pop("_block_vars", None)
        return obj(context.eval_ctx, *arguments, **named)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return isinstance(obj, LoopContext) and not attr.startswith("_") and not callable(value)

    def wrap_str_format(self, value: Any) -> None:  # noqa: ARG002  # Jinja's own version would allow a `format` method
        return None

    def is_safe_callable(self, obj: Any) -> bool:
        return isinstance(obj, Macro | BlockReference)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(side, int | Decimal | Undefined) for side in (left, right)):
            raise SecurityError(f"{operator} works on numbers only")
        return super().call_binop(context, operator, left, right)


def environment(sources: Mapping[str, str], codes: BytecodeStore | None = None) -> TemplateEnvironment:
    """An environment over the sources of one catalog. They are in memory: rendering reads no files. `codes` are compiled ones."""
    env = TemplateEnvironment(
        loader=FunctionLoader(lambda name: _load_source(name, sources)),
        autoescape=lambda name: bool(name and name.endswith(".html")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        cache_size=-1,
        auto_reload=False,
        bytecode_cache=codes or BytecodeStore(),
    )
    env.globals.clear()
    env.filters = {name: FILTERS[name] for name in _FILTERS}
    env.filters |= {name: _language_filter(shape) for name, shape in LANGUAGE_FILTERS.items()}
    return env


def _load_source(name: str, sources: Mapping[str, str]) -> tuple[str, str, None] | None:
    """The source, with its name as the file name, so that a traceback shows where rendering failed."""
    return (sources[name], name, None) if name in sources else None


def _language_filter(shape: Callable[..., str]) -> Callable[..., str]:
    @pass_context
    def shaped(context: Context, value: Any, *arguments: Any) -> str:
        language = context.get("language")
        if language is None:
            raise FilterArgumentError("this macro needs the message's language: import it 'with context'")
        return shape(language, value, *arguments)

    return shaped
