"""Translation exchange: export the texts of a template for translators, and import their translations.

An import replaces texts at their places and nothing else, and only if the whole template still passes every check. What is not
translated, or was translated from a text that has changed since, blocks approval; no other text is used instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from channels.base import Channel, Email, Push, WhatsApp
from dispatcher import content
from dispatcher.campaigns.template_approval import known_template
from dispatcher.content import Catalog, ContentRefusal, InvalidTemplates, Senders, Template, TemplateError, example_request
from dispatcher.content.translation_state import FILE, TranslationState, read_state
from dispatcher.content.translation_units import TranslationUnit, codes, is_same_sentence, pair_units, read_parts, replaced
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake import translation_files
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.translation_files import Exchange, ExchangeFormat, ExchangeUnit
from dispatcher.policy import Policy
from dispatcher.runtime.entity_senders import senders_of

# How much phones and mail clients show, in characters of the rendered examples. The first two are Android's and iOS's usual cuts.
TITLE_MAX, BODY_MAX, SUBJECT_MAX = 65, 240, 120
_DIRECTION_CONTROLS = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))  # readers see another text
Pairs = list[tuple[TranslationUnit, TranslationUnit]]


@dataclass(frozen=True, slots=True)
class TranslationImport:
    """What an import did. `files` are those that changed, relative to the folder."""

    template: str
    language: str
    translated: int
    changed: int
    untranslated: tuple[str, ...]
    files: tuple[str, ...]


def export(catalog: Catalog, name: str, source: str, target: str, exchange_format: ExchangeFormat) -> bytes:
    """The texts of a template from one language to another, for translators. Raises `BadInput`."""
    _check_languages("--language", source, target)
    template = known_template(catalog, name)
    return translation_files.write(Exchange(name, source, target, _exported_units(template, source, target)), exchange_format)


def _exported_units(template: Template, source: str, target: str) -> list[ExchangeUnit]:
    made_from = _state(template).made_from.get(target, {})
    units = []
    for here, there in pair_units(template.source, template.name, source, target):
        digest = made_from.get(here.id, "")
        is_untranslated = here.is_marked or there.is_marked or (not digest and is_same_sentence(here.text, there.text))
        needs_work = is_untranslated or (bool(made_from) and digest != here.digest)
        is_of_this = (not made_from or bool(digest)) and not (needs_work and codes(here.text) != codes(there.text))
        units.append(
            ExchangeUnit(
                id=here.id,
                source=here.text,
                target=there.text if is_of_this else "",  # a text with other placeholders is that of another sentence
                needs_work=needs_work,
                notes=tuple(_notes(template, here)),
                place=(there.part.file, there.line),
            )
        )
    return units


def _is_as_exported(template: Template, exchange: Exchange) -> bool:
    """Whether nobody has worked on a file since its export."""

    def state_of(units: Iterable[ExchangeUnit]) -> dict[str, tuple[str, bool]]:
        return {unit.id: (unit.target, unit.needs_work or not unit.target) for unit in units}

    return state_of(exchange.units) == state_of(_exported_units(template, exchange.source, exchange.target))


def import_file(policy: Policy, folder: Path, catalog: Catalog, file: Path) -> TranslationImport:
    """Put the translations of a file into the template folder, whose templates are `catalog`.

    Raises `BadInput` with every error; then nothing is changed.
    """
    try:
        exchange = translation_files.read(str(file), file.read_bytes())
    except OSError as error:
        raise BadInput(InputError(str(file), 0, "", f"can't be read: {error.strerror}")) from None
    _check_languages(str(file), exchange.source, exchange.target)
    template = known_template(catalog, exchange.template)
    pairs = pair_units(template.source, template.name, exchange.source, exchange.target)
    if errors := list(_unit_errors(str(file), exchange, pairs)):
        raise BadInput(*errors)
    by_id = {unit.id: unit for unit in exchange.units}
    translated = {id_: unit for id_, unit in by_id.items() if unit.target.strip() and not unit.needs_work}
    targets = {here.id: there for here, there in pairs}
    changes = {id_: (targets[id_], unit.target) for id_, unit in translated.items() if _is_change(unit, targets[id_])}
    files = replaced(template.source, changes)
    if changes:
        _check_result(senders_of(policy, template), str(file), files, by_id, targets, changes)
    is_unchanged = _is_as_exported(template, exchange)
    state = "" if is_unchanged else _new_state(template, exchange, pairs, translated, bool(changes))
    if state:
        files[f"{template.name}/{FILE}"] = state
    before = {**template.source, f"{template.name}/{FILE}": template.translations}
    changed = [each for each, text in files.items() if text != before[each]]
    for each in changed:
        (folder / each).write_bytes(files[each].encode())
    untranslated = tuple(here.id for here, _ in pairs if here.id not in translated)
    return TranslationImport(template.name, exchange.target, len(translated), len(changes), untranslated, tuple(changed))


def _is_change(unit: ExchangeUnit, target: TranslationUnit) -> bool:
    """Whether an import writes this text; one that stays loses its mark."""
    return target.is_marked or unit.target != target.text


# -- context for translators -------------------------------------------------------------------------------------------


def _notes(template: Template, unit: TranslationUnit) -> Iterator[str]:
    """Channel and part, the variables with their examples, and the limit of length."""
    part, language = unit.part.name, unit.part.file.split("/")[1]
    yield f"{template.name}, {part.split('.')[0]}: {part}"
    for name, variable in template.variables.items():
        if any(name in code for code in codes(unit.text)):
            yield f"{name}: {variable.type}, such as {variable.example[language]}"
    limits = {"push.title": TITLE_MAX, "push.body": BODY_MAX, "email.subject": SUBJECT_MAX}
    if part in limits:
        yield f"at most {limits[part]} characters with its values"
    if part == "sms.text" and template.segments_max:
        yield f"at most {template.segments_max[language]} SMS segments; some accents shorten a segment"
    if part.startswith("whatsapp.") and part.endswith(".approved"):
        yield from _placeholder_notes(template, language, part.split(".")[1])


def _placeholder_notes(template: Template, language: Language, mode: str) -> Iterator[str]:
    """What the numbers of a WhatsApp text stand for, such as "{{1}}: {{ sender.name }}, such as KBC Bank"."""
    parts = read_parts(template.source, template.name, language)
    try:
        content = template.render(example_request(template, Channel.WHATSAPP, language, Mode(mode)))
    except ContentRefusal:
        return
    for number, value in content.variables.items() if isinstance(content, WhatsApp) else ():
        part = parts.get(f"whatsapp.{mode}.{number}")
        yield f"{{{{{number}}}}}: {part.text if part else ''}, such as {value}"


# -- checks ------------------------------------------------------------------------------------------------------------


def _check_languages(place: str, source: str, target: str) -> None:
    for language in (source, target):
        if language not in LANGUAGES:
            raise BadInput(InputError(place, 0, "language", f"{language!r} is not one of {', '.join(LANGUAGES)}"))
    if source == target:
        raise BadInput(InputError(place, 0, "language", "source and target are the same"))


def _unit_errors(file: str, exchange: Exchange, pairs: Pairs) -> Iterator[InputError]:
    """Units that are not known, whose source text is another by now, or whose placeholders are lost or changed."""
    known = {here.id: (here, there) for here, there in pairs}
    seen: set[str] = set()
    folder = f"{exchange.template}/{exchange.target}/"
    for file_of_unit in dict.fromkeys(unit.place[0] for unit in exchange.units if unit.place[0]):
        if not file_of_unit.startswith(folder):
            message = f"names the language {exchange.target}, but the file was exported for texts of {file_of_unit}"
            yield InputError(file, 1, "header", message)
            return
    for unit in exchange.units:
        if unit.id not in known:
            yield InputError(
                file, unit.line, unit.id or "unit", f"is not a text of {exchange.template}{did_you_mean(unit.id, known)}"
            )
            continue
        here, there = known[unit.id]
        if unit.id in seen:
            yield InputError(file, unit.line, unit.id, "is there twice")
        seen.add(unit.id)
        if controls := sorted(set(unit.target) & _DIRECTION_CONTROLS):
            named = ", ".join(f"U+{ord(each):04X}" for each in controls)
            yield InputError(file, unit.line, unit.id, f"has {named}, which reverses the text around it: delete it")
        elif unit.source != here.text:
            message = f"the text in {exchange.source} has changed since the export: it is {here.text!r}; export it again"
            yield InputError(file, unit.line, unit.id, message)
        elif unit.target.strip() and not unit.needs_work and codes(unit.target) not in (codes(here.text), codes(there.text)):
            yield InputError(file, unit.line, unit.id, _placeholder_message(here.text, unit.target))


def _placeholder_message(source: str, target: str) -> str:
    wanted, found = codes(source), codes(target)
    lost = [code for code in dict.fromkeys(wanted) if found.count(code) < wanted.count(code)]
    added = [code for code in dict.fromkeys(found) if found.count(code) > wanted.count(code)]
    parts = [f"lost {', '.join(lost)}" if lost else "", f"not in the source: {', '.join(added)}" if added else ""]
    return f"its placeholders differ: {'; '.join(filter(None, parts))}"


def _check_result(
    senders: Senders,
    file: str,
    files: Mapping[str, str],
    by_id: Mapping[str, ExchangeUnit],
    targets: Mapping[str, TranslationUnit],
    changes: Mapping[str, tuple[TranslationUnit, str]],
) -> None:
    """Raise `BadInput` unless the template with the translations passes every check, the lengths included."""
    try:
        template = content.load_version(files, senders=senders)
    except InvalidTemplates as invalid:
        raise BadInput(*(_as_input_error(file, fault, by_id, targets, changes) for fault in invalid.faults)) from None
    errors = [
        InputError(file, by_id[id_].line, id_, f"has {length} characters with its values, more than {most}")
        for id_, (unit, _) in changes.items()
        for length, most in _lengths(template, unit, senders)
        if length > most
    ]
    if errors:
        raise BadInput(*errors)


def _as_input_error(
    file: str,
    fault: TemplateError,
    by_id: Mapping[str, ExchangeUnit],
    targets: Mapping[str, TranslationUnit],
    changes: Mapping[str, tuple[TranslationUnit, str]],
) -> InputError:
    """A fault of the template at the changed unit that causes it, as far as its place tells."""
    near = [id_ for id_ in changes if targets[id_].part.file == fault.file and targets[id_].line <= fault.line]
    near.sort(key=lambda id_: (targets[id_].part.name == fault.field, targets[id_].line))
    if not near:
        return InputError(file, 0, "", str(fault))
    return InputError(file, by_id[near[-1]].line, near[-1], str(fault))


def _lengths(template: Template, unit: TranslationUnit, senders: Senders) -> Iterator[tuple[int, int]]:
    """Rendered lengths of the unit's part, each with its limit."""
    part, language = unit.part.name, unit.part.file.split("/")[1]
    channel = {"push": Channel.PUSH, "email": Channel.EMAIL}.get(part.split(".")[0])
    if channel is None or part not in ("push.title", "push.body", "email.subject"):
        return
    for mode in sorted(template.info.modes):
        try:
            rendered = template.render(example_request(template, channel, language, mode, None, senders))
        except ContentRefusal:
            continue
        if isinstance(rendered, Push):
            yield (len(rendered.title), TITLE_MAX) if part == "push.title" else (len(rendered.body), BODY_MAX)
        elif isinstance(rendered, Email):
            yield len(rendered.subject), SUBJECT_MAX


# -- state -------------------------------------------------------------------------------------------------------------


def _state(template: Template) -> TranslationState:
    state = read_state(template.name, template.translations)
    if isinstance(state, TemplateError):
        raise BadInput(InputError(state.file, state.line, state.field, state.message))
    return state


def _new_state(
    template: Template, exchange: Exchange, pairs: Pairs, translated: Mapping[str, ExchangeUnit], is_changed: bool
) -> str:
    """The new `translations.toml`; "" where a template that was written by hand stays as it is."""
    state = _state(template)
    complete = len(translated) == len(pairs)
    if exchange.target not in state.made_from and not is_changed and complete:
        return template.translations
    digests = {here.id: here.digest if here.id in translated else "" for here, _ in pairs}
    return state.with_language(exchange.source, exchange.target, digests).to_toml()
