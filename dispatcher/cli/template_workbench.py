"""`dispatcher templates serve`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from dispatcher.cli.output import BAD_INPUT, Json, fail, out, print_json
from dispatcher.cli.template_data import read_data
from dispatcher.runtime import bootstrap

HOST = "127.0.0.1"

app = typer.Typer()


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free port.")] = 8090,
    data: Annotated[Path | None, typer.Option(help="Variables as a JSON file, in place of the templates' examples.")] = None,
    as_json: Json = False,
) -> None:
    """Show all messages of the templates in a browser on this machine, and again after each change of a file.

    Every channel, language, mode, width and colour scheme, with edge cases and the findings of `check` beside their lines. Ctrl-C
    ends it.
    """
    import uvicorn  # takes 0.2 s, which the other commands need not wait for

    from dispatcher.web.workbench import WorkbenchFolder, create_workbench

    settings = bootstrap.file_settings()
    read_data(data)  # a file that cannot be read is an error now; later ones are shown on the page
    folder = WorkbenchFolder(bootstrap.policy(settings)[0], settings.templates, data)
    servers: list[uvicorn.Server] = []
    application = create_workbench(folder, lambda: any(each.should_exit for each in servers))
    listening = _listen(port)
    url = f"http://{HOST}:{listening.getsockname()[1]}/"
    if as_json:
        print_json({"url": url, "folder": str(settings.templates)})
    else:
        out.print(f"The workbench of {settings.templates} is at {url} (Ctrl-C ends it)", markup=False)
    config = uvicorn.Config(application, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    servers.append(uvicorn.Server(config))
    servers[0].run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        fail(f"--port: {port} cannot be used ({error.strerror}): choose another, or 0 for any free port", BAD_INPUT)
    return listening
