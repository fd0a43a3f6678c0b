"""`dispatcher audience …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dispatcher.campaigns import audience_uploads
from dispatcher.campaigns.audience_uploads import Upload, UploadConflict, UploadRange, UploadTooLarge
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, fail, out, pairs, print_json, rows, show_left_out
from dispatcher.intake.audience_uploads import suffix_of
from dispatcher.runtime import bootstrap
from dispatcher.web.serializers.audiences import upload_view

app = typer.Typer(help="Uploaded audiences, which campaigns name by their id.", no_args_is_help=True)

PIECE_BYTES = 1024 * 1024


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the uploads, complete or not."""
    views = [upload_view(upload) for upload in audience_uploads.every(bootstrap.services(on_faults=show_left_out))]
    if as_json:
        print_json(views)
    elif not views:
        out.print("no upload")
    else:
        rows("", tuple(views[0]), [tuple(view.values()) for view in views])


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="A .jsonl, .csv, .tsv or .xlsx file, also as .gz.")],
    upload_id: Annotated[str, typer.Option("--id", help="The upload's id; default: the name of the file.")] = "",
    as_json: Json = False,
) -> None:
    """Upload an audience as `PUT /v1/audiences/{id}` does: a campaign names it as `audience: {upload: ID}`."""
    suffix = suffix_of(file.name, "")
    name = upload_id or file.name
    if suffix is None:
        fail(f"{file}: should be a .jsonl, .csv, .tsv or .xlsx file, or one of these as .gz", BAD_INPUT)
    if not audience_uploads.is_id(name):
        fail(f"--id: {name!r} should have letters, digits and . _ : - only, at most 100", BAD_INPUT)
    try:
        with file.open("rb") as source:
            whole = UploadRange(0, file.stat().st_size)
            writer = audience_uploads.open_upload(
                bootstrap.services(on_faults=show_left_out), Upload(name, suffix, file.suffix == ".gz"), whole
            )
            try:
                while data := source.read(PIECE_BYTES):
                    writer.write(data)
                view = upload_view(writer.finish())
            finally:
                writer.close()
    except (UploadConflict, UploadTooLarge) as error:
        fail(f"upload {name}: {error}", REFUSED)
    except OSError as error:
        fail(f"{error.filename or file}: {error.strerror}", BAD_INPUT)
    print_json(view) if as_json else pairs("", view)


@app.command()
def delete(upload_id: Annotated[str, typer.Argument(metavar="ID", help="The upload's id.")], as_json: Json = False) -> None:
    """Delete an upload, complete or not, unless a campaign is loading from it."""
    try:
        deleted = audience_uploads.is_id(upload_id) and audience_uploads.delete(
            bootstrap.services(on_faults=show_left_out), upload_id
        )
    except UploadConflict as error:
        fail(f"upload {upload_id}: {error}", REFUSED)
    if not deleted:
        fail(f"no upload has the id {upload_id}", REFUSED)
    print_json({"id": upload_id}) if as_json else out.print(f"deleted: {upload_id}", markup=False)
