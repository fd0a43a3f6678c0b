"""Links to a partner that depend on data about the person. Static: a text is followed through all its branches at once.

The result of following a text is the text itself with marks: `_PERSONAL` before what depends on the person, `_AT` before each line.
A link to a partner that holds such a mark differs between readers. What is followed: conditions, filters, indices, `set`, loops,
includes, and macros with their arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import TemplateSyntaxError, nodes

from dispatcher.content.declaration import IMPERSONAL_CATEGORIES
from dispatcher.content.environment import environment
from dispatcher.content.lint.marked import Place
from dispatcher.content.source_files import SourceFile
from dispatcher.content.template import Template
from dispatcher.domain.recipient import Language

_AT, _PERSONAL, _END = "\ue0f8\ue0f9\ue0fa"
_MARK = re.compile(f"[{_AT}{_PERSONAL}]([0-9]+){_END}")
_WORD = re.compile(r"[^\s\"'<>]+")  # what a mail program may read as one link
_PUNCTUATION = ".,;:!?)"
_AFTER_LINK = re.compile(rf"(?:[{re.escape(_PUNCTUATION)}]|{_MARK.pattern})+\Z")
_ONE_LINK = re.compile(r"https?://(?:(?!https?://).)+|.+", re.IGNORECASE)
_UNKNOWN = "x"  # for a value that is not known, and says nothing about the person
_DEPTH_MAX = 8  # macros in macros

Env = dict[str, str]  # a name -> the text that it stands for


@dataclass(slots=True)
class PartnerChoices:
    """Follows the sources of one template in one language. `partners` are the hosts."""

    template: Template
    language: Language
    partners: frozenset[str]
    found: dict[tuple[Place, str], None] = field(default_factory=dict)
    _places: list[Place] = field(default_factory=list)
    _macros: dict[str, tuple[nodes.Macro, str, int]] = field(default_factory=dict)
    _fixed: list[Place] = field(default_factory=list)  # the call of the macro of another file that is followed
    _host: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        names = "|".join(re.escape(each) for each in sorted(self.partners, key=len, reverse=True))
        self._host = re.compile(rf"(?<![\w-])(?:{names})(?![\w-])", re.IGNORECASE)

    def read(self, source: SourceFile) -> list[tuple[Place, str]]:
        """The links of a source that depend on the person, each with its place."""
        self.found.clear()
        try:
            tree = environment({}).parse(source.source)
        except TemplateSyntaxError:  # which loading reports
            return []
        self._macros.clear()
        text = self._body(tree.body, self._variables(), source.file, source.line - 1)
        self._report(text)
        return list(self.found)

    def _variables(self) -> Env:
        env = {"mode": self._personal(("", 0)) + _UNKNOWN}
        for name, each in self.template.variables.items():
            value = str(each.example[self.language]) if each.type == "url" else _UNKNOWN
            personal = each.category not in IMPERSONAL_CATEGORIES and not each.links  # `links` are checked one by one
            env[name] = (self._personal(("", 0)) if personal else "") + value
        return env

    # Marks

    def _mark(self, kind: str, place: Place) -> str:
        self._places.append(self._fixed[0] if self._fixed else place)
        return f"{kind}{len(self._places) - 1}{_END}"

    def _personal(self, place: Place) -> str:
        return self._mark(_PERSONAL, place)

    def _report(self, text: str) -> None:
        """Remember the links to partners that hold a mark of personal data."""
        for word in _WORD.finditer(text):
            if _PERSONAL not in word[0]:
                continue
            link = _AFTER_LINK.sub("", word[0])
            mark = next((each for each in _MARK.finditer(link) if each[0][0] == _PERSONAL), None)
            if mark and self._host.search(_MARK.sub("", link)):
                shown = _ONE_LINK.search(_MARK.sub("", link))
                self._add(self._places[int(mark[1])], shown[0] if shown else "")

    def _add(self, place: Place, link: str) -> None:
        self.found[place, link] = None

    def _links(self, text: str) -> dict[str, Place]:
        """The links to partners in a text, each with its place."""
        found: dict[str, Place] = {}
        for word in _WORD.finditer(text):
            link = _MARK.sub("", word[0]).rstrip(_PUNCTUATION)
            if "/" in link and self._host.search(link):  # a host alone is a name
                marks = list(_MARK.finditer(text, 0, word.end()))
                found.setdefault(link, self._places[int(marks[-1][1])] if marks else ("", 0))
        return found

    def _compare(self, branches: Sequence[str]) -> None:
        """Remember the links to partners that not all branches of a condition on the person have."""
        found = [self._links(each) for each in branches]
        for links in found:
            for link, place in links.items():
                if place[0] and not all(link in other for other in found):
                    self._add(place, link)

    # Statements

    def _body(self, body: Sequence[nodes.Node], env: Env, file: str, offset: int) -> str:
        return "".join(self._statement(each, env, file, offset) for each in body)

    def _statement(self, node: nodes.Node, env: Env, file: str, offset: int) -> str:  # noqa: C901  one case for each statement
        place = (file, node.lineno + offset)
        match node:
            case nodes.Output():
                return "".join(self._output(each, env, file, offset) for each in node.nodes)
            case nodes.If():
                return self._condition(node, env, file, offset)
            case nodes.For():
                items = self._value(node.iter, env, place)
                for name in node.target.find_all(nodes.Name) if not isinstance(node.target, nodes.Name) else (node.target,):
                    env[name.name] = items
                text = self._body(node.body, env, file, offset)
                if _PERSONAL in items:
                    self._compare((text, self._body(node.else_, env, file, offset)))
                return text + self._body(node.else_, env, file, offset)
            case nodes.Assign():
                self._assign(node.target, self._value(node.node, env, place), env)
            case nodes.AssignBlock():
                self._assign(node.target, self._body(node.body, env, file, offset), env)
            case nodes.Macro():
                self._macros[node.name] = (node, file, offset)
            case nodes.FromImport():
                self._import(node)
            case nodes.CallBlock():
                inner = dict(env)
                return self._call(node.call, {**env, "caller": self._body(node.body, inner, file, offset)}, place)
            case nodes.Include():
                included = str(getattr(node.template, "value", ""))
                return self._body(self._shared(included), env, included, 0)
            case nodes.Block() | nodes.Scope() | nodes.FilterBlock():
                return " " + self._body(node.body, env, file, offset) + " "
            case nodes.With():
                for target, value in zip(node.targets, node.values, strict=True):
                    self._assign(target, self._value(value, env, place), env)
                return self._body(node.body, env, file, offset)
        return ""

    def _assign(self, target: nodes.Node, text: str, env: Env) -> None:
        for each in (target, *target.find_all((nodes.Name, nodes.NSRef))):
            if isinstance(each, nodes.Name | nodes.NSRef):
                env[each.name] = text if isinstance(each, nodes.Name) else env.get(each.name, "") + text

    def _condition(self, node: nodes.If, env: Env, file: str, offset: int) -> str:
        tests = [node.test, *(each.test for each in node.elif_)]
        place = (file, node.lineno + offset)
        personal = any(_PERSONAL in self._value(each, env, place) for each in tests)
        envs = [dict(env) for _ in range(len(tests) + 1)]
        bodies = [node.body, *(each.body for each in node.elif_), node.else_]
        branches = [self._body(body, own, file, offset) for body, own in zip(bodies, envs, strict=True)]
        for name in dict.fromkeys(name for own in envs for name in own):
            texts = list(dict.fromkeys(own.get(name, "") for own in envs))
            env[name] = texts[0] if len(texts) == 1 else self._joined(texts, place, personal=personal)
        if personal:
            self._compare(branches)
        return self._joined(branches, place, personal=personal)

    def _joined(self, branches: Sequence[str], place: Place, *, personal: bool) -> str:
        """The texts of all branches. A branch that is empty, or begins with a blank, does not continue a link before it."""
        mark = self._personal(place) if personal else ""
        return "".join((mark if _WORD.match(_MARK.sub("", each)) else "") + each for each in branches)

    def _import(self, node: nodes.FromImport) -> None:
        name = getattr(node.template, "value", "")
        macros = {each.name: each for each in self._shared(name) if isinstance(each, nodes.Macro)}
        for each in node.names:
            original, alias = each if isinstance(each, tuple) else (each, each)
            if original in macros:
                self._macros[alias] = (macros[original], str(name), 0)

    def _shared(self, name: object) -> list[nodes.Node]:
        try:
            return environment({}).parse(self.template.source.get(str(name), "")).body
        except TemplateSyntaxError:
            return []

    # Expressions

    def _output(self, node: nodes.Node, env: Env, file: str, offset: int) -> str:
        line = node.lineno + offset
        if isinstance(node, nodes.TemplateData):
            pieces = enumerate(node.data.split("\n"))
            return "\n".join(self._mark(_AT, (file, line + number)) + piece for number, piece in pieces)
        return self._mark(_AT, (file, line)) + self._value(node, env, (file, line))

    def _value(self, node: nodes.Node, env: Env, place: Place) -> str:
        match node:
            case nodes.Const():
                return str(node.value)
            case nodes.Name():
                text = env.get(node.name, _UNKNOWN)
                if _PERSONAL not in text:
                    return text
                return self._personal(place) + text
            case nodes.Concat():
                return "".join(self._value(each, env, place) for each in node.nodes)
            case nodes.Add():
                return self._value(node.left, env, place) + self._value(node.right, env, place)
            case nodes.CondExpr():
                personal = _PERSONAL in self._value(node.test, env, place)
                branches = [self._value(each, env, place) for each in (node.expr1, node.expr2) if each is not None]
                if personal:
                    self._compare([self._mark(_AT, place) + each for each in branches] + [""] * (node.expr2 is None))
                return self._joined(branches, place, personal=personal)
            case nodes.Call():
                return self._call(node, env, place)
        children = [self._value(each, env, place) for each in node.iter_child_nodes()]
        mark = self._personal(place) if any(_PERSONAL in each for each in children) else ""
        text = " ".join(children) or _UNKNOWN
        return _WORD.sub(lambda word: mark + word[0], text) if mark else text

    def _call(self, node: nodes.Call, env: Env, place: Place) -> str:
        name = getattr(node.node, "name", "")
        if name == "caller":
            return env.get("caller", "")
        arguments = [self._value(each, env, place) for each in node.args]
        named = {each.key: self._value(each.value, env, place) for each in node.kwargs}
        if name not in self._macros or len(self._fixed) >= _DEPTH_MAX:
            return " ".join((*arguments, *named.values()))
        macro, file, offset = self._macros[name]
        inner = dict(env)
        names = [each.name for each in macro.args]
        defaults = dict(zip(names[len(names) - len(macro.defaults) :], macro.defaults, strict=True))
        inner |= {each: self._value(default, env, place) for each, default in defaults.items()}
        inner |= dict(zip(names, arguments, strict=False)) | named
        self._fixed.append(self._fixed[0] if self._fixed else place)
        text = self._body(macro.body, inner, file, offset)
        self._fixed.pop()
        return text


def chosen_partner_links(
    template: Template, language: Language, sources: Mapping[str, SourceFile], partners: frozenset[str]
) -> Iterator[tuple[str, Place, str]]:
    """The links to partners that depend on the person, as (part, place, link)."""
    choices = PartnerChoices(template, language, partners)
    for part, source in sources.items():
        for place, link in choices.read(source):
            yield part, place, link
