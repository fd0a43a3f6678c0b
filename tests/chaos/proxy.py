"""A TCP proxy between two parts of the program that can stop forwarding: one is cut off, and neither side is notified."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from pathlib import Path

BLOCK = 65_536


class Proxy:
    """Forwards connections to a Unix socket or a local port. While `cut`, bytes wait and new connections hang, as behind a firewall
    that drops packets.
    """

    def __init__(self, target: Path | int) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._losses = 0  # how often what was on its way was lost
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Forward nothing from now on."""
        self._open.clear()

    def heal(self, *, forget: bool) -> None:
        """Forward again. With `forget`, earlier connections are closed, and their bytes in transit are lost."""
        if forget:
            self._losses += 1
            for pair in self._pairs:
                _shut(*pair)
        self._open.set()

    def close(self) -> None:
        """Close everything."""
        self._listener.close()
        self.heal(forget=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        losses = self._losses
        self._open.wait()
        if losses != self._losses:
            client.close()
            return
        try:
            server = self._connect()
        except OSError:
            client.close()
            return
        pair = (client, server)
        self._pairs.append(pair)
        with suppress(OSError, ValueError):
            self._forward(client, server)
        self._pairs.remove(pair)
        client.close()
        server.close()

    def _connect(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._target))
        except OSError:
            server.close()
            raise
        return server

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, (client, server))
            ready.register(server, selectors.EVENT_READ, (server, client))
            while True:
                for key, _ in ready.select():
                    source, sink = key.data
                    data = source.recv(BLOCK)
                    self._open.wait()
                    if not data:
                        return
                    sink.sendall(data)


def _shut(*sides: socket.socket) -> None:
    for side in sides:
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
