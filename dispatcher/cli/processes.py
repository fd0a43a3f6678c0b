"""`dispatcher run …`: one process of an installation, for containers and service managers."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dispatcher.cli.output import BAD_INPUT, REFUSED, AlwaysJson, Json, fail, print_json
from dispatcher.cli.probe import fault_at

app = typer.Typer(help="Run one process of an installation, for containers and service managers.", no_args_is_help=True)

Host = Annotated[str, typer.Option(help="The address to listen on.")]


@app.command()
def worker(
    lane: Annotated[str, typer.Argument(help="The lane of tasks that it takes.")],
    processes: Annotated[int | None, typer.Option(min=1, help="Worker processes. Default: as `dispatcher up`.")] = None,
    _as_json: AlwaysJson = False,
) -> None:
    """Run the Celery worker of a lane. On TERM it takes no more tasks, finishes those that it has, and ends."""
    from dispatcher.devserver.processes import LANES, become, lane_worker
    from dispatcher.domain.spelling import did_you_mean
    from dispatcher.runtime import bootstrap

    if lane not in LANES:
        fail(f"{lane!r} is no lane{did_you_mean(lane, LANES)}", BAD_INPUT)
    become(lane_worker(bootstrap.settings(), lane, processes), os.environ)


@app.command()
def beat(_as_json: AlwaysJson = False) -> None:
    """Run Celery's scheduler. There must be exactly one per installation."""
    from dispatcher.devserver import supervisor
    from dispatcher.devserver.processes import become

    become(supervisor.beat(), os.environ)


@app.command()
def web(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    _as_json: AlwaysJson = False,
) -> None:
    """Run API, webhooks, preference centre and console. Behind a reverse proxy, set FORWARDED_ALLOW_IPS to its address."""
    from dispatcher.devserver import supervisor
    from dispatcher.devserver.processes import become

    become(supervisor.web(host, port), os.environ)


@app.command()
def flower(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5555,
    _as_json: AlwaysJson = False,
) -> None:
    """Run Flower, Celery's dashboard. FLOWER_BASIC_AUTH says who may sign in: user:password, several with commas between them."""
    from dispatcher.devserver import supervisor
    from dispatcher.devserver.processes import become, flower_login
    from dispatcher.runtime import bootstrap

    become(supervisor.flower(port, bootstrap.settings().home, flower_login(os.environ), host), os.environ)


@app.command()
def probe(
    url: Annotated[str, typer.Argument(help="Such as http://127.0.0.1:8000/healthz, or /metrics of a worker.")],
    as_json: Json = False,
) -> None:
    """Exit 0 where a process answers at this URL, 1 where it does not. For health checks in images that have no other tools."""
    if not url.startswith("http://"):
        fail(f"URL is {url!r}: it must begin with http://", BAD_INPUT)
    if fault := fault_at(url):
        fail(fault, REFUSED)
    if as_json:
        print_json({"url": url, "answers": True})
