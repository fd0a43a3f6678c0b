"""The HTTP server of the sandbox: framing, compression, TLS, errors."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from python_http_client.exceptions import BadRequestsError

from channels.sandbox import SandboxClient, running, write_certificate
from tests.support.sandbox_clients import (
    make_mail,
    sendgrid_client,
)


def exchange_raw(sandbox: SandboxClient, sent: bytes, pieces: int = 1) -> bytes:
    """Send raw bytes in `pieces` parts. Returns all bytes until the sandbox closes the connection."""
    with socket.create_connection(("127.0.0.1", urlsplit(sandbox.url).port or 0), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = -(-len(sent) // pieces)
        for start in range(0, len(sent), size):
            connection.sendall(sent[start : start + size])
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def raw_mail(body: bytes, *headers: str) -> bytes:
    lines = ("POST /v3/mail/send HTTP/1.1", "Authorization: Bearer SG.k", "Content-Type: application/json", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_requests_are_parsed_in_any_framing(sandbox: SandboxClient) -> None:
    body = json.dumps(make_mail()).encode()
    plain = raw_mail(body, f"Content-Length: {len(body)}")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:], b""))
    chunked = raw_mail(chunks, "Transfer-Encoding: chunked")
    packed = gzip.compress(body)
    zipped = raw_mail(packed, f"Content-Length: {len(packed)}", "Content-Encoding: gzip", "Connection: close")
    for pieces in (1, 40):
        answers = exchange_raw(sandbox, plain + chunked + plain + zipped, pieces)
        assert answers.count(b"HTTP/1.1 202 Accepted") == 4
    assert sandbox.counts()["email"] == 8
    assert len({line["receipt"] for line in sandbox.log()}) == 8


@pytest.mark.parametrize("sent", [b"\x16\x03\x01 what\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"x" * 70_000])
def test_bytes_that_are_not_http_get_a_400(sandbox: SandboxClient, sent: bytes) -> None:
    assert exchange_raw(sandbox, sent).startswith(b"HTTP/1.1 400")
    assert sandbox.counts()["total"] == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "key"),
    [
        ("GET", "/v3/nothing", 404, "errors"),
        ("GET", "/v3/mail/send", 405, "errors"),
        ("POST", "/2010-04-01/Accounts/AC1/Nothing.json", 404, "code"),
        ("PUT", "/v1/projects/bank/messages:send", 405, "error"),
        ("PUT", "/_sandbox/log", 405, "error"),
    ],
)
def test_unknown_paths_get_the_providers_own_error(sandbox: SandboxClient, method: str, path: str, status: int, key: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(sandbox.url).netloc, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    assert answer.status == status
    assert key in json.loads(answer.read())


def test_it_serves_tls_with_its_own_certificate(tmp_path: Path) -> None:
    authority, certificate, key = write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with running(ssl_context=context) as sandbox:
        trusting = SandboxClient(sandbox.url, trust=ssl.create_default_context(cafile=str(authority)))
        assert trusting.counts()["total"] == 0


def test_bad_client_requests_name_the_problem(sandbox: SandboxClient) -> None:
    with pytest.raises(BadRequestsError):
        sendgrid_client(sandbox).client.mail.send.post(request_body=["not", "a", "mail"])
    with pytest.raises(ValueError, match="surprise"):
        sandbox.set_events(surprise=1)
