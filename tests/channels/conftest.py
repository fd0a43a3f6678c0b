"""Fixtures for tests of the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import firebase_admin
import pytest
from firebase_admin import credentials, messaging
from requests.adapters import HTTPAdapter

from channels.sandbox import SandboxClient, running
from tests.support.sandbox_clients import (
    Webhook,
)


@pytest.fixture
def sandbox() -> Iterator[SandboxClient]:
    with running() as it:
        yield it


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            hook.calls.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(hook.answers.pop(0) if hook.answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield hook
    server.shutdown()
    server.server_close()


@pytest.fixture
def firebase_app(sandbox: SandboxClient, tmp_path: Path) -> Iterator[firebase_admin.App]:
    account = sandbox.service_account(tmp_path / "account.json", project="bank")
    app = firebase_admin.initialize_app(credentials.Certificate(str(account)), {"httpTimeout": 5}, name=str(tmp_path))
    service = messaging._get_messaging_service(app)  # the SDK has no public option for the URL ...
    service._fcm_url = f"{sandbox.url}/v1/projects/bank/messages:send"
    service._client.session.mount("http://", HTTPAdapter(max_retries=0))  # ... or to disable its retries
    yield app
    firebase_admin.delete_app(app)
