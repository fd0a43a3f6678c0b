"""Load a folder of templates: either all texts are compiled and checked, or all faults are reported."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from jinja2 import TemplateSyntaxError
from markupsafe import escape

from dispatcher.content import toml, translation_state
from dispatcher.content.declaration import RESERVED, Declaration, TemplateVariable, has_faulty_modes, read_declaration
from dispatcher.content.environment import BytecodeStore, TemplateEnvironment, environment
from dispatcher.content.errors import InvalidTemplates, TemplateError
from dispatcher.content.generated_text import GenerationError, generated_part
from dispatcher.content.inline_styles import inlined_sources
from dispatcher.content.legal import Legal, read_legal
from dispatcher.content.preview import check_examples, check_links_for_personal_data
from dispatcher.content.render_request import NO_SENDERS, Senders
from dispatcher.content.shipped import SHARED
from dispatcher.content.source_files import FILES, SourceFile, SourceFiles, read_source_files
from dispatcher.content.specialiser.decision_tree import Specialiser
from dispatcher.content.static_checks import check_source, defined_macros, used_variables
from dispatcher.content.template import LocalizedTemplate, Template
from dispatcher.content.themes import Theme, read_themes
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.domain.spelling import did_you_mean

MAIL_BLOCKS = (("title", "email.subject"), ("preheader", "email.preheader"))  # of the mail layout, and the parts that fill them
_SUFFIXES = frozenset({".toml", ".html", ".txt"})


class Catalog(Mapping[str, Template]):
    """The templates of one folder, by name. The KeyError for an unknown name suggests the nearest one.

    `faults` are those of templates that are left out.
    """

    def __init__(self, templates: Mapping[str, Template], faults: Iterable[TemplateError] = ()) -> None:
        self._templates = dict(templates)
        self.faults = tuple(faults)

    def reason(self, name: str) -> str:
        """Why there is no template of this name: its first fault, or that nobody wrote it."""
        own = [each for each in self.faults if each.file.split("/")[0] in (name, SHARED)]
        if not own:
            return f"there is no template {name!r}{did_you_mean(name, self._templates)}"
        more = f", and {len(own) - 1} more" if len(own) > 1 else ""
        return f"the template {name!r} has faults: {own[0]}{more}"

    def __getitem__(self, name: str) -> Template:
        if name not in self._templates:
            raise KeyError(f"no template {name!r}{did_you_mean(name, self._templates)}")
        return self._templates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._templates)

    def __len__(self) -> int:
        return len(self._templates)


def load(folder: Path, random: Callable[[], float] | None = None, previous: Mapping[str, Template] | None = None) -> Catalog:
    """Read, check and compile all templates under `folder`. Raises `InvalidTemplates` with all faults.

    With `random` (numbers from 0 to 1) texts are rendered along compiled paths, see `specialiser`; without, always by Jinja.
    Templates of `previous` that did not change are taken as they are.
    """
    files, faults = read_folder(folder)
    unchanged = {name: template for name, template in (previous or {}).items() if _is_unchanged(template, files)}
    rest = {file: text for file, text in files.items() if file.split("/")[0] not in unchanged}
    if unchanged and not faults and all(file.startswith(f"{SHARED}/") for file in rest):
        return Catalog(unchanged)
    return Catalog(dict(sorted({**unchanged, **_load(rest, faults, random)}.items())))


def _is_unchanged(template: Template, files: Mapping[str, str]) -> bool:
    translations = files.get(f"{template.name}/{translation_state.FILE}", "")
    return template.source == _source(template.name, files) and template.translations == translations


def load_version(source: Mapping[str, str], random: Callable[[], float] | None = None, senders: Senders = NO_SENDERS) -> Template:
    """The one template of these files (name -> text). Raises `InvalidTemplates`, also where they hold none, or several."""
    templates = _load(source, [], random, senders)
    if len(templates) != 1:
        raise InvalidTemplates([TemplateError(".", 1, "folder", "", f"holds {len(templates)} templates, not one")])
    return next(iter(templates.values()))


def load_sound(folder: Path, random: Callable[[], float] | None = None) -> tuple[Catalog, list[TemplateError]]:
    """The templates of a folder that have no faults, and the faults of the others."""
    try:
        return load(folder, random), []
    except InvalidTemplates as invalid:
        faults = invalid.faults
    files, reading = read_folder(folder)
    unreadable = {each.file.split("/")[0] for each in reading}
    sound: dict[str, Template] = {}
    for name in sorted({file.split("/")[0] for file in files} - {SHARED} - unreadable):
        with suppress(InvalidTemplates):
            sound[name] = load_version({file: text for file, text in files.items() if file.split("/")[0] in (name, SHARED)}, random)
    return Catalog({} if SHARED in unreadable else sound, faults), list(faults)


def _load(
    files: Mapping[str, str], faults: list[TemplateError], random: Callable[[], float] | None, senders: Senders = NO_SENDERS
) -> dict[str, Template]:
    """The templates of these files, by name. Raises `InvalidTemplates` with all faults, those of the reading included."""
    draft = _draft(files)
    faults = [*faults, *draft.faults, *_check_sources(draft)]
    if faults:
        raise InvalidTemplates(faults)
    templates = _compile(draft, files)
    faults = [fault for template in templates.values() for fault in _check_renderings(template, draft, senders)]
    if faults:
        raise InvalidTemplates(faults)
    return templates if random is None else {name: _specialise(each, random) for name, each in templates.items()}


def _check_renderings(template: Template, draft: _Draft, senders: Senders = NO_SENDERS) -> Iterator[TemplateError]:
    yield from check_examples(template, draft.place, senders)
    yield from check_links_for_personal_data(template)


def _specialise(template: Template, random: Callable[[], float]) -> Template:
    return replace(template, specialiser=Specialiser(template.name, template.digest, random))


def check(folder: Path) -> list[TemplateError]:
    """All faults of the templates under `folder`; an empty list if they can be used."""
    try:
        load(folder)
    except InvalidTemplates as faults:
        return list(faults.faults)
    return []


@dataclass(frozen=True, slots=True)
class FolderReport:
    """All that can be said of a folder, with or without errors: the templates that can be compiled, and the errors of reading the
    files, of the sources, and of rendering the examples."""

    templates: Mapping[str, Template]
    reading: tuple[TemplateError, ...]
    sources: tuple[TemplateError, ...]
    renderings: tuple[TemplateError, ...]


def inspect(folder: Path) -> FolderReport:
    """Read and check a folder as far as possible, where `load` stops at the first kind of errors."""
    return inspect_files(*read_folder(folder))


def inspect_files(files: Mapping[str, str], faults: Iterable[TemplateError] = ()) -> FolderReport:
    """The same for files that were read, with the faults of the reading."""
    draft = _draft(files)
    sources = list(_check_sources(draft))
    templates: dict[str, Template] = {}
    env = environment(_jinja_sources(draft), draft.codes)
    for name in draft.declarations:
        with suppress(Exception):  # a source or a declaration with errors, which are reported
            templates[name] = _template(env, draft, name, files)
    renderings: list[TemplateError] = []
    for template in templates.values():
        with suppress(Exception):  # as above
            renderings += _check_renderings(template, draft)
    return FolderReport(templates, (*faults, *draft.faults), tuple(sources), tuple(renderings))


@dataclass(slots=True)
class _Draft:
    """What is read and not compiled yet. `shared` holds layouts and macros; `texts` is by template and language."""

    legal: Legal
    themes: dict[str, Theme] = field(default_factory=dict)
    shared: dict[str, SourceFile] = field(default_factory=dict)
    declarations: dict[str, Declaration] = field(default_factory=dict)
    texts: dict[tuple[str, Language], SourceFiles] = field(default_factory=dict)
    faults: list[TemplateError] = field(default_factory=list)
    codes: BytecodeStore = field(default_factory=BytecodeStore)  # of the sources that were checked

    def sources(self) -> dict[str, SourceFile]:
        """All Jinja sources, by their names in Jinja."""
        named = {_source_name(key, part): text for key, texts in self.texts.items() for part, text in texts.parts.items()}
        return {**self.shared, **named}

    def place(self, name: str, line: int) -> tuple[str, int]:
        """The file and line of a line of a source."""
        return self.sources()[name].place(line)


def _source_name(key: tuple[str, Language], part: str) -> str:
    folder = "/".join(key)
    return f"{folder}/{FILES[part]}" if part in FILES else f"{folder}/texts.toml#{part}"


def read_folder(folder: Path) -> tuple[dict[str, str], list[TemplateError]]:
    """All files under the folder, by relative name. Ignores hidden files and notes (*.md)."""
    files: dict[str, str] = {}
    faults: list[TemplateError] = []
    if not folder.is_dir():
        return files, [TemplateError(str(folder), 1, "folder", "", "is not there")]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".md" or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix not in _SUFFIXES:
            faults.append(TemplateError(name, 1, "file", "", "unexpected kind of file: known are .toml, .html, .txt"))
            continue
        try:
            files[name] = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            faults.append(TemplateError(name, 1, "file", "", "can't be read as UTF-8 text"))
    return files, faults


def _draft(files: Mapping[str, str]) -> _Draft:
    legal, faults = read_legal(f"{SHARED}/legal.toml", files)
    themes, theme_faults = read_themes(files)
    draft = _Draft(legal, themes, faults=[*faults, *theme_faults])
    shared = (name for name in files if name.startswith(f"{SHARED}/") and not name.endswith(".toml"))
    draft.shared = {name: SourceFile(files[name], name) for name in shared}
    names = sorted({name.split("/")[0] for name in files} - {SHARED})
    if not names:
        draft.faults.append(TemplateError(".", 1, "folder", "", "holds no template"))
    for name in names:
        draft.faults += _unused_files(name, files)
        document = _declaration(name, files)
        if isinstance(document, TemplateError):
            draft.faults.append(document)
            continue
        declaration, faults = read_declaration(name, document, legal.topics)
        draft.faults += faults
        draft.declarations[name] = declaration
        for language in LANGUAGES:
            modes, has_modes = sorted(declaration.info.modes), not has_faulty_modes(faults)
            texts = read_source_files(f"{name}/{language}", files, declaration.channels, modes, has_modes=has_modes)
            draft.faults += texts.faults
            draft.texts[name, language] = texts
    _generate_texts(draft)
    return draft


def _generate_texts(draft: _Draft) -> None:
    """Make the text part of each mail that has none."""
    shared = dict(draft.shared)
    for texts in draft.texts.values():
        html = texts.parts.get("email.html")
        if html is None or "email.text" in texts.parts:
            continue
        try:
            part, generated = generated_part(environment({}), html, shared)
        except GenerationError:
            message = "is missing, and cannot be made from this HTML: write it"
            draft.faults.append(TemplateError(html.file, 1, "email.txt", "", message))
        else:
            texts.parts["email.text"] = part
            draft.shared |= generated


def _declaration(name: str, files: Mapping[str, str]) -> toml.Document | TemplateError:
    file = f"{name}/template.toml"
    return toml.read(file, files[file]) if file in files else TemplateError(file, 1, "file", "", "is missing")


def _unused_files(name: str, files: Mapping[str, str]) -> Iterator[TemplateError]:
    """Files that no code reads: probably a typing error in the name."""
    known = {
        "template.toml",
        translation_state.FILE,
        *(f"{language}/{file}" for language in LANGUAGES for file in ("texts.toml", *FILES.values())),
    }
    for file in files:
        relative = file.removeprefix(f"{name}/")
        if relative != file and relative not in known:
            yield TemplateError(file, 1, "file", "", f"is used by nothing{did_you_mean(relative, known)}")


def _check_sources(draft: _Draft) -> Iterator[TemplateError]:
    env = environment({}, draft.codes)
    shared = {name: defined_macros(env, text.source) for name, text in draft.shared.items()}
    env.context_names = {
        name: used_variables(env, draft.shared[name].source) & RESERVED.keys() for name, macros in shared.items() if macros
    }
    for name, text in draft.shared.items():
        if not text.is_generated:  # the HTML is checked
            yield from _template_errors(text, check_source(env, name, text.source, {}, shared))
    for key, texts in draft.texts.items():
        variables = draft.declarations[key[0]].variables
        for part, text in texts.parts.items():
            if text.is_generated:
                continue
            findings = check_source(env, _source_name(key, part), text.source, variables, shared)
            yield from _template_errors(text, findings)
            if part.startswith("push.") and not findings:
                yield from _private_data_in_push(draft.legal, variables, text, used_variables(env, text.source))


def _private_data_in_push(
    legal: Legal, variables: Mapping[str, TemplateVariable], text: SourceFile, names: frozenset[str]
) -> Iterator[TemplateError]:
    """Personal data that a push would show to anyone who sees the screen."""
    for name in names & set(variables):
        if variables[name].category in legal.not_in_push:
            message = f"data of category {variables[name].category!r} is not shown on a locked screen"
            yield TemplateError(text.file, text.line, name, "", message)


def _template_errors(text: SourceFile, findings: Iterable[tuple[int, str, str]]) -> Iterator[TemplateError]:
    for line, name, message in findings:
        yield TemplateError(*text.place(line), name, "", message)


def _compile(draft: _Draft, files: Mapping[str, str]) -> dict[str, Template]:
    env = environment(_jinja_sources(draft), draft.codes)
    return {name: _template(env, draft, name, files) for name in draft.declarations}


def _jinja_sources(draft: _Draft) -> dict[str, str]:
    """All sources, with subject and preheader in the blocks that the mail layout has for them, and with inlined styles."""
    env, sources = environment({}), {name: text.source for name, text in draft.sources().items()}
    for key, texts in draft.texts.items():
        html = texts.parts.get("email.html")
        if html and "{% extends" in html.source:
            sources[_source_name(key, "email.html")] = f"{html.source}\n{''.join(_mail_blocks(env, texts))}"
    return inlined_sources(sources)


def _mail_blocks(env: TemplateEnvironment, texts: SourceFiles) -> Iterator[str]:
    for block, part in MAIL_BLOCKS:
        with suppress(KeyError, TemplateSyntaxError):  # a text that is missing or cannot be read, which is reported
            yield f"{{% block {block} %}}{as_html(env, texts.parts[part].source)}{{% endblock %}}"


def as_html(env: TemplateEnvironment, source: str) -> str:
    """A plain text source as an HTML source. Its literal text is escaped here; the mail's template escapes its variables."""
    return "".join(str(escape(token)) if kind == "data" else token for _, kind, token in env.lex(source))


def _template(env: TemplateEnvironment, draft: _Draft, name: str, files: Mapping[str, str]) -> Template:
    declaration, legal, source = draft.declarations[name], draft.legal, _source(name, files)
    translations = files.get(f"{name}/{translation_state.FILE}", "")
    languages = {
        language: LocalizedTemplate(
            parts={part: env.get_template(_source_name((name, language), part)) for part in draft.texts[name, language].parts},
            whatsapp=draft.texts[name, language].whatsapp,
            warning=legal.topics[declaration.info.topic][language] if declaration.info.topic else "",
            mark=legal.advertising[language],
        )
        for language in LANGUAGES
    }
    return Template(
        info=declaration.info,
        version=declaration.version,
        author=declaration.author,
        digest=_digest(source),
        entity=declaration.entity,
        channels=declaration.channels,
        variables=declaration.variables,
        languages=languages,
        push=declaration.push,
        segments_max=declaration.segments_max,
        themes=draft.themes,
        source=source,
        translations=translations,
        translation_faults=tuple(translation_state.translation_faults(name, translations, source)) if translations else (),
    )


def _source(name: str, files: Mapping[str, str]) -> dict[str, str]:
    """The files of one template that its messages are made of: its own and the shared ones."""
    own = {file: text for file, text in files.items() if file.startswith((f"{name}/", f"{SHARED}/"))}
    own.pop(f"{name}/{translation_state.FILE}", None)
    return own


def _digest(files: Mapping[str, str]) -> str:
    """SHA-256 over names and contents, each with its length, so that different folders have different input."""
    digest = hashlib.sha256()
    for part in (part for item in sorted(files.items()) for part in item):
        digest.update(f"{len(part.encode())}:{part}".encode())
    return digest.hexdigest()
