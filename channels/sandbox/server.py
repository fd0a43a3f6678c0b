"""Run the sandbox: in its own process (`serve`), or in a thread of the test process (`running`)."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from channels.sandbox.app import make_app
from channels.sandbox.client import SandboxClient
from channels.sandbox.http import Connection
from channels.sandbox.state import SandboxState, make_state


@asynccontextmanager
async def _listening(state: SandboxState, host: str, port: int, tls: ssl.SSLContext | None) -> Any:
    """Start the server and yield its port. At the end close every connection and stop the events."""
    handle, open_connections = make_app(state), set[asyncio.Transport]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(handle, open_connections), host, port, ssl=tls, backlog=1024)
    state.events.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in tuple(open_connections):
            transport.abort()
        await state.events.stop()
        await asyncio.sleep(0)  # let the aborted connections finish
        state.log.close()


async def _run(
    state: SandboxState, host: str, port: int, tls: ssl.SSLContext | None, ready: Callable[[int], None], stop: asyncio.Event
) -> None:
    async with _listening(state, host, port, tls) as bound:
        ready(bound)
        await stop.wait()


def serve(
    make: Callable[[], SandboxState],
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None = None,
    ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Serve until SIGINT or SIGTERM. `make` makes the state; `ready` is called with the URL when the server listens.

    Raises OSError if the port is in use.
    """

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await _run(make(), host, port, ssl_context, lambda bound: ready(_url(host, bound, ssl_context)), stop)

    gc.set_threshold(100_000, 50, 100)  # hardly any reference cycles here; searching for them often costs a tenth of the time
    asyncio.run(main())


@contextmanager
def running(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    state_folder: Path | None = None,
    seed: int = 0,
    ssl_context: ssl.SSLContext | None = None,
) -> Iterator[SandboxClient]:
    """Run a sandbox in a thread of this process until the block ends; by default on a free port."""
    bound: list[int] = []
    failed: list[BaseException] = []
    started, control = threading.Event(), list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    def ready(port: int) -> None:
        bound.append(port)
        started.set()

    async def main() -> None:
        stop = asyncio.Event()
        control.append((asyncio.get_running_loop(), stop))
        await _run(make_state(state_folder, seed=seed), host, port, ssl_context, ready, stop)

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as fault:
            failed.append(fault)
            started.set()

    thread = threading.Thread(target=work, name="sandbox", daemon=True)
    thread.start()
    started.wait()
    if failed:
        raise failed[0]
    try:
        yield SandboxClient(_url(host, bound[0], ssl_context))
    finally:
        loop, stop = control[0]
        with suppress(RuntimeError):  # the loop is already closed
            loop.call_soon_threadsafe(stop.set)
        thread.join()


def _url(host: str, port: int, tls: ssl.SSLContext | None) -> str:
    return f"{'https' if tls else 'http'}://{host}:{port}"


def announce(url: str) -> None:
    """Print the URL in one line on standard output; a parent process can wait for it."""
    _print_line(f"sandbox ready at {url}")


def announce_json(event: str, **details: str) -> None:
    """Print an event as one line of JSON on standard output."""
    _print_line(json.dumps({"event": event, **details}))


def _print_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
