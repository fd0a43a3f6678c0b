"""Writes the generated parts of the reference pages, and of the client: `python -m docs.generate`.

A page marks each part by a pair of comments, and everything between them is replaced:

    <!-- generated: states -->
    …
    <!-- end generated -->

Each part is a function without arguments that returns Markdown. It reads the program's own declarations (the policy's rules, the
commands, the OpenAPI document, the enums), so that the pages cannot contradict the program. `tests/test_docs.py` fails while a page
differs from what this module would write.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import typer
from pydantic import BaseModel

from channels.base import Channel
from channels.registry import ProviderPlugin, plugins
from dispatcher.cli import command_groups
from dispatcher.content.lint.findings import LintRule, lint_rules
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import State
from dispatcher.domain.principal import RIGHT_MEANINGS, ROLE_RIGHTS, Right, Role
from dispatcher.events.catalog import PREFIX, TYPES, EventFamily, schema_of
from dispatcher.events.file_columns import DATASETS
from dispatcher.intake.campaign import CampaignForm
from dispatcher.intake.recipient import RecipientForm
from dispatcher.intake.trigger import TriggerForm
from dispatcher.maintenance.alert_rules import rules
from dispatcher.maintenance.metrics import GAUGES, OUTSIDE_GAUGES, STATE_GAUGES
from dispatcher.policy import RULES
from dispatcher.runtime.environment import OUR_PREFIX, EnvironmentReader, EnvironmentVariable
from dispatcher.runtime.metric_families import FAMILIES
from dispatcher.runtime.metrics import PREFIX as METRIC_PREFIX
from dispatcher.runtime.services import Services
from dispatcher.runtime.settings import variables
from dispatcher.web.app import create
from dispatcher.web.console import labels
from dispatcher.web.dependencies import TaskPublisher
from docs import generate_client

PAGES = Path(__file__).parent
RULES_FILE = PAGES / "reference" / "rules.toml"
_PART = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end generated -->)", re.DOTALL)
Rows = Sequence[Sequence[str]]


def pages() -> Iterator[Path]:
    """Every page that has a generated part."""
    for path in sorted(PAGES.rglob("*.md")):
        if _PART.search(path.read_text(encoding="utf-8")):
            yield path


def refreshed(text: str) -> str:
    """A page's text with every generated part as it should be now. Raises KeyError for a part that nobody writes."""
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found['name']]().strip()}\n\n{found[3]}", text)


def table(header: Sequence[str], rows: Rows) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """A word in code's type; nothing for an empty one."""
    return f"`{text}`" if text else ""


# -- states and reason codes -------------------------------------------------------------------------------------------


def states() -> str:
    """The states of a message."""
    return table(("state", "meaning"), [(code(state), labels.STATES[state]) for state in State])


def campaign_states() -> str:
    """The states of a campaign."""
    return table(("state", "meaning"), [(code(state), labels.CAMPAIGN_STATES[state]) for state in CampaignState])


def reason_codes() -> str:
    """The policy's codes, strongest first, then the codes that the program itself adds later."""
    rows = [(code(each), labels.REASONS[each]) for each in ReasonCode]
    later = [(code(each), meaning) for each, meaning in labels.REASONS.items() if each not in set(ReasonCode)]
    return f"{table(('code', 'meaning'), rows)}\nCodes that are set after the decision:\n\n{table(('code', 'meaning'), later)}"


# -- roles and rights --------------------------------------------------------------------------------------------------


def roles() -> str:
    """Which role has which right."""
    header = ("right", *(role.value for role in Role))
    return table(header, [(code(right), *("yes" if right in ROLE_RIGHTS[role] else "" for role in Role)) for right in Right])


def rights() -> str:
    """What each right allows."""
    return table(("right", "allows to"), [(code(right), RIGHT_MEANINGS[right]) for right in Right])


# -- metrics -----------------------------------------------------------------------------------------------------------


def _metric_row(name: str, labels: Iterable[str], meaning: str) -> tuple[str, str]:
    inside = ", ".join(labels)
    return code(METRIC_PREFIX + name + (f"{{{inside}}}" if inside else "")), meaning


def gauges() -> str:
    """The gauges that the web application serves."""
    return table(
        ("metric", "meaning"),
        [_metric_row(each.name, each.labels, each.help) for each in (*GAUGES, *OUTSIDE_GAUGES, *STATE_GAUGES)],
    )


def metric_families() -> str:
    """What each process group counts."""
    return table(("metric", "meaning"), [_metric_row(each.name, each.labels, each.help) for each in FAMILIES])


def alert_rules() -> str:
    """The alerts, each with its runbook."""
    rows = [
        (
            f"[Dispatcher{rule.name}](runbooks/{rule.runbook}.md)",
            rule.severity.value,
            f"{rule.minutes} min",
            re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"(\1)", rule.text),
        )
        for rule in rules()
    ]
    return table(("alert", "severity", "after", "meaning"), rows)


# -- the rules ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def rule_texts() -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """What people wrote about the rules: see `docs/reference/rules.toml`."""
    return tomllib.loads(RULES_FILE.read_text(encoding="utf-8"))


def _rule_rows(entries: Sequence[Mapping[str, Any]]) -> Rows:
    rows = []
    for entry in entries:
        name = code(entry["rule"]) if "rule" in entry else entry["title"]
        exempt = " °" if entry.get("service_exempt") else ""
        result = [*map(code, entry.get("codes", ())), *(f"state {code(state)}" for state in entry.get("states", ()))]
        keys = [code(key) for key in entry.get("keys", ())]
        rows.append((f"{name}{exempt}", entry["does"], entry.get("source", ""), ", ".join(keys), ", ".join(result)))
    return rows


def _rules_of(section: str, names: Mapping[str, object]) -> str:
    """One section of the table, in the order in which the policy hears its rules."""
    by_name = {entry["rule"]: entry for entry in rule_texts()[section]}
    return table(_RULE_HEADER, _rule_rows([by_name[name] for name in names]))


_RULE_HEADER = ("rule", "what it does", "source", "key in the policy or campaign", "result")


def person_rules() -> str:
    """Rules about the person and the job."""
    return _rules_of("person", RULES.person)


def channel_rules() -> str:
    """Rules about one channel."""
    return _rules_of("channel", RULES.channel)


def other_rules() -> str:
    """What is enforced outside the two tables of rules."""
    return table(_RULE_HEADER, _rule_rows(rule_texts()["other"]))


def rule_tests() -> str:
    """The tests that hold each rule."""
    rows = []
    for entry in (entry for section in ("person", "channel", "other") for entry in rule_texts()[section]):
        name = code(entry["rule"]) if "rule" in entry else entry["title"]
        rows.append((name, ", ".join(map(code, entry["tests"]))))
    return table(("rule", "tests (without `test_`)"), rows)


# -- the command line --------------------------------------------------------------------------------------------------


def command_line() -> str:
    """Every command with its arguments and options."""
    root = cast("Any", typer.main.get_command(command_groups.command_line()))
    return "\n".join(_commands(root, typer.Context(root, info_name="dispatcher")))


def _commands(command: Any, context: Any) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield _command(command, context)
        return
    if context.parent is not None:
        yield f"## `{context.command_path}`\n\n{_sentence(command.help)}\n"
    else:
        yield "## Single commands\n"
    for name, sub in sorted(inner.items(), key=lambda item: hasattr(item[1], "commands")):
        yield from _commands(sub, typer.Context(sub, info_name=name, parent=context))


def _command(command: Any, context: Any) -> str:
    head = f"### `{context.command_path}`\n\n{_sentence(command.help)}\n"
    records = [record for parameter in command.params if (record := parameter.get_help_record(context))]
    rows = [(code(name.replace("int range", "int")), meaning) for name, meaning in records]
    return f"{head}\n{table(('argument or option', 'meaning'), rows)}" if rows else head


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split()).replace("<", "\\<")


# -- the HTTP interface ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def openapi() -> Mapping[str, Any]:
    """The application's OpenAPI document, without a database behind it."""
    services = cast("Services", SimpleNamespace(public_url="https://dispatcher.example"))
    return create(services, cast("TaskPublisher", None)).openapi()


def api_routes() -> str:
    """Every route with its parameters, body and answers."""
    operations = [
        (method.upper(), path, operation) for path, methods in openapi()["paths"].items() for method, operation in methods.items()
    ]
    return "\n".join(_route(*operation) for operation in operations)


def _route(method: str, path: str, operation: Mapping[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    parameters = [
        (code(each["name"]), each["in"], _type(each["schema"]), "yes" if each.get("required") else "no")
        for each in operation.get("parameters", ())
    ]
    parts = [f"### `{method} {path}`\n", _sentence(operation.get("description") or operation.get("summary")) + "\n"]
    if parameters:
        parts.append(table(("parameter", "in", "type", "required"), parameters))
    parts.append((f"- Body: {_type(body)}\n" if body else "") + "".join(_answers(operation["responses"])))
    return "\n".join(parts)


def _answers(responses: Mapping[str, Any]) -> Iterator[str]:
    """Every successful answer on a line of its own, and all errors on one."""
    for status in sorted(each for each in responses if each < "400"):
        shown = _answer_schema(responses[status])
        yield f"- Answer: {code(status)}{f', {shown}' if shown else ''}\n"
    errors = [code(status) for status in sorted(responses) if status >= "400"]
    if errors:
        yield f"- Errors: {', '.join(errors)}\n"


def _answer_schema(answer: Mapping[str, Any]) -> str:
    shown = [_type(content["schema"]) for content in answer.get("content", {}).values() if content.get("schema")]
    return ", ".join(each for each in shown if each != "any")


def api_schemas() -> str:
    """The fields of every document that the API takes or gives."""
    return "\n".join(_schema(name, each) for name, each in sorted(openapi()["components"]["schemas"].items()))


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    head = f"### Schema `{name.lstrip('_')}`\n\n{_sentence(schema.get('description'))}\n"
    if "enum" in schema:
        return f"{head}\nOne of {', '.join(code(str(value)) for value in schema['enum'])}.\n"
    return f"{head}\n{table(('field', 'type', 'required'), fields(schema))}"


def fields(schema: Mapping[str, Any]) -> Rows:
    """The rows of a table of a schema's fields."""
    required = schema.get("required", ())
    return [(code(name), _type(field), "yes" if name in required else "no") for name, field in schema.get("properties", {}).items()]


_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
}


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few labels."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2].lstrip("_")
        return f"[{name}](#schema-{name.lower()})"
    if "anyOf" in schema or "oneOf" in schema:
        found = (_type(each) for each in schema.get("anyOf", schema.get("oneOf", ())) if each.get("type") != "null")
        return " or ".join(dict.fromkeys(found))
    if "enum" in schema:
        return ", ".join(code(str(value)) for value in schema["enum"])
    if "const" in schema:
        return code(str(schema["const"]))
    return _bounded(_plain_type(schema), schema)


def _plain_type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'])}"
    return {"date-time": "date and time", "date": "date"}.get(schema.get("format", ""), str(kind))


def _bounded(words_: str, schema: Mapping[str, Any]) -> str:
    bounds = [text.format(f"{schema[key]:,}") for key, text in _BOUNDS.items() if isinstance(schema.get(key), int | float)]
    return f"{words_} ({', '.join(bounds)})" if bounds else words_


# -- files -------------------------------------------------------------------------------------------------------------


def _form(form: type[BaseModel]) -> str:
    schema = form.model_json_schema(ref_template="#/{model}")
    return table(("field", "type", "required"), fields(schema)).replace("](#schema-", "](api.md#schema-")


def campaign_fields() -> str:
    """The fields of a campaign."""
    return _form(CampaignForm)


def trigger_fields() -> str:
    """The fields of a trigger."""
    return _form(TriggerForm)


def recipient_fields() -> str:
    """The fields of a recipient."""
    return _form(RecipientForm)


# -- the configuration -------------------------------------------------------------------------------------------------


def settings() -> str:
    """The program's own variables."""
    return _variables([each for each in variables() if each.name.startswith(OUR_PREFIX)])


def provider_settings() -> str:
    """The variables of each provider, from its own file."""
    parts = []
    for name, plugin in plugins().items():
        reader = EnvironmentReader({})
        plugin.read_account(reader)
        if reader.known:
            parts.append(f"### `{name}`\n\n{_variables(reader.known.values())}")
    return "\n".join(parts)


def _variables(found: Iterable[EnvironmentVariable]) -> str:
    rows = [(code(each.name), each.about, each.values, code(each.default)) for each in found]
    return table(("variable", "meaning", "values", "default"), rows)


# -- providers ---------------------------------------------------------------------------------------------------------


def providers() -> str:
    """Every provider, by what its own file declares."""
    return table(("provider", "channels", "needs", "webhooks"), [_provider(each) for each in plugins().values()])


def _provider(plugin: ProviderPlugin[Any]) -> Sequence[str]:
    needs = dict.fromkeys(need for channel in Channel for need in plugin.needs.get(channel, ()))
    endpoints = [code(f"/webhooks/{plugin.name}{f'/{path}' if path else ''}") for path in plugin.endpoints]
    return (code(plugin.name), ", ".join(plugin.needs), ", ".join(map(code, needs)), ", ".join(endpoints))


# -- events ------------------------------------------------------------------------------------------------------------


def events() -> str:
    """Every kind of event: what it means, its types, and the fields of its data."""
    return "\n".join(_event_kind(kind) for kind in EventFamily)


def _event_kind(kind: EventFamily) -> str:
    schema = schema_of(kind)
    types = ", ".join(code(f"{PREFIX}.{kind}.{what}") for what in TYPES[kind])
    rows = [(code(name), _nullable_type(field), field.get("description", "")) for name, field in schema["properties"].items()]
    head = f"## {str(kind).capitalize()}\n\n{_sentence(schema['description'])}\n\nTypes: {types}.\n"
    return f"{head}\n{table(('field', 'type', 'meaning'), rows)}"


def event_file_columns() -> str:
    """The columns of event files, by kind of file."""
    return "\n".join(
        f"## `{dataset.name}`\n\n{dataset.about}\n\n"
        + table(("column", "type", "meaning"), [(code(each.name), each.kind, each.about) for each in dataset.columns])
        for dataset in DATASETS
    )


def _nullable_type(schema: Mapping[str, Any]) -> str:
    """A field's type; enums of the program by name, because their values are on other pages."""
    return re.sub(r"\[([A-Za-z]+)\]\(#schema-[a-z]+\)", r"\1", _type(schema))


# -- templates ---------------------------------------------------------------------------------------------------------


def template_checks() -> str:
    """Every rule of the linter, by group."""
    rules = lint_rules().values()
    return "\n".join(
        f"## {group.capitalize()}\n\n" + "\n".join(_lint_rule(each) for each in rules if each.group == group)
        for group in dict.fromkeys(each.group for each in rules)
    )


def _lint_rule(rule: LintRule) -> str:
    return (
        f"### {rule.code}: {rule.title}\n\n{rule.severity.capitalize()}. {_sentence(rule.why)}\n\n"
        f"- Source: {_sentence(rule.source)}\n- To mend it: {_as_code(rule.mend)}\n- Example: `` {rule.example} ``\n"
    )


def _as_code(text: str) -> str:
    """A sentence with its markup and Jinja in code's type."""
    return re.sub(r"\{\{.*?\}\}|\{%.*?%\}|<[^<>]+>", lambda found: f"`{found[0]}`", " ".join(text.split()))


PARTS: Mapping[str, Callable[[], str]] = {
    "gauges": gauges,
    "metric-families": metric_families,
    "alert-rules": alert_rules,
    "api-routes": api_routes,
    "api-schemas": api_schemas,
    "campaign-fields": campaign_fields,
    "campaign-states": campaign_states,
    "channel-rules": channel_rules,
    "client-methods": generate_client.methods,
    "command-line": command_line,
    "event-file-columns": event_file_columns,
    "events": events,
    "other-rules": other_rules,
    "person-rules": person_rules,
    "provider-settings": provider_settings,
    "providers": providers,
    "reason-codes": reason_codes,
    "recipient-fields": recipient_fields,
    "rights": rights,
    "roles": roles,
    "rule-tests": rule_tests,
    "settings": settings,
    "states": states,
    "template-checks": template_checks,
    "trigger-fields": trigger_fields,
}


def main() -> None:
    """Rewrite the pages whose generated parts are out of date, and name them."""
    for path in pages():
        text = path.read_text(encoding="utf-8")
        new = refreshed(text)
        if new != text:
            path.write_text(new, encoding="utf-8")
            sys.stdout.write(f"written: {path.relative_to(PAGES.parent)}\n")
    for path, new in generate_client.modules(openapi()).items():
        if new != path.read_text(encoding="utf-8"):
            path.write_text(new, encoding="utf-8")
            sys.stdout.write(f"written: {path.relative_to(PAGES.parent)}\n")


if __name__ == "__main__":
    main()
