"""`dispatcher templates export-translations` and `import-translations`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dispatcher import content
from dispatcher.campaigns import translations
from dispatcher.cli.output import Json, out, plural, print_json
from dispatcher.intake.translation_files import ExchangeFormat
from dispatcher.runtime import bootstrap


def add_to(app: typer.Typer) -> None:
    """Add these commands to `dispatcher templates`."""
    app.command("export-translations")(export_translations)
    app.command("import-translations")(import_translations)


def export_translations(
    name: Annotated[str, typer.Argument(help="The template's name.")],
    language: Annotated[str, typer.Option(help="The language to translate into: nl, fr, de or en.")],
    to: Annotated[ExchangeFormat, typer.Option(case_sensitive=False, help="XLIFF (2.0) or PO.")] = ExchangeFormat.XLIFF,
    source: Annotated[str, typer.Option(help="The language to translate from.")] = "en",
    output: Annotated[Path | None, typer.Option(help="The file to write. Default: standard output.")] = None,
    as_json: Json = False,
) -> None:
    """Write the texts of a template to a file for translators."""
    exported = translations.export(content.load(bootstrap.file_settings().templates), name, source, language, to)
    if output is not None:
        output.write_bytes(exported)
    if as_json:
        print_json({"template": name, "source": source, "language": language, "format": to.value, "content": exported.decode()})
    elif output is None:
        sys.stdout.write(exported.decode())
    else:
        out.print(f"written: {output}", markup=False)


def import_translations(
    file: Annotated[Path, typer.Argument(help="The translated file, XLIFF or PO.", exists=False)],
    as_json: Json = False,
) -> None:
    """Put translations into the template folder, if the whole template still passes every check."""
    settings = bootstrap.file_settings()
    folder = settings.templates
    result = translations.import_file(bootstrap.policy(settings)[0], folder, content.load(folder), file)
    if as_json:
        print_json(asdict(result))
        return
    out.print(f"{result.template}, {result.language}: {plural(result.changed, 'text')} changed, {result.translated:,} translated")
    for unit in result.untranslated:
        out.print(f"not translated, which blocks approval: {unit}", markup=False)
    for changed in result.files:
        out.print(f"written: {changed}", markup=False)
