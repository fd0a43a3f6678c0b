"""`dispatcher templates new`, and what `templates check` shows of drafts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dispatcher.campaigns.new_template import SOURCES, write_skeleton
from dispatcher.cli.output import Json, err, out, plural, print_json
from dispatcher.content import Catalog, NewTemplate, TemplateError, texts_to_write
from dispatcher.domain.message import Kind
from dispatcher.runtime import bootstrap

app = typer.Typer()


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as spring_offer; also the name of its folder.")],
    kind: Annotated[Kind, typer.Option(help="commercial or service.")],
    author: Annotated[str, typer.Option(help="Who writes it, and so cannot approve it.")],
    source: Annotated[
        str | None, typer.Option("--from", help="The template to begin with. Default: loan_offer, or cashback_paid for a service.")
    ] = None,
    entity: Annotated[str, typer.Option(help="In whose name. Default: that of the template to begin with.")] = "",
    into: Annotated[Path | None, typer.Option(help="The folder of templates; a new one gets the shared files, too.")] = None,
    as_json: Json = False,
) -> None:
    """Write a new template: all languages and channels of another one, with a mark at each text that is to be written."""
    folder = into or bootstrap.file_settings().templates
    written = write_skeleton(folder, NewTemplate(name, source or SOURCES[kind], author, entity), kind)
    if as_json:
        print_json({"template": name, "folder": str(written.folder), "files": list(written.files), "to_write": written.to_write})
        return
    out.print(f"{written.folder}: {plural(len(written.files), 'file')}, {plural(written.to_write, 'text')} to write", markup=False)
    out.print(f"`dispatcher templates check {name}` names each of them.", markup=False)


def unwritten(catalog: Catalog, name: str | None) -> list[TemplateError]:
    """The texts that are still to be written, of one template or of all."""
    return [fault for template in catalog.values() if name in (None, template.name) for fault in texts_to_write(template)]


def show(texts: Sequence[TemplateError]) -> None:
    """Name each text that is still to be written."""
    if texts:
        err.print(f"\n{plural(len(texts), 'text')} to write before an approval. Replace each, and delete its mark.", markup=False)
    for text in texts:
        err.print(f"{text.file}:{text.line}: {text.field}: {text.value or text.message}", markup=False)
