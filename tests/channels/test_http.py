"""HTTP transport: whether a request was certainly not sent, or may have been, after each kind of failure."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from channels.base import Unavailable, Uncertain
from channels.http import RESPONSE_BYTES_MAX, HttpRequest, HttpResponse, HttpTransport, TransportError, header_lines
from tests.support.http_servers import LOST, Answer, ReceivedRequest, http2_server, http_answer, http_server
from tests.support.provider_cases import closed_port

FINE = http_answer(200, b"fine")
HEADERS = header_lines({"X-Test": "1"})


@pytest.fixture
def http() -> Iterator[HttpTransport]:
    made = HttpTransport(concurrency=8, connect_timeout_seconds=1, timeout_seconds=5)
    yield made
    made.close()


def post(port: int, body: bytes = b"body", scheme: str = "http") -> HttpRequest:
    return HttpRequest(f"{scheme}://127.0.0.1:{port}/x", HEADERS, body)


def status(answer: HttpResponse | TransportError) -> int:
    assert isinstance(answer, HttpResponse), answer
    return answer.status


def test_connections_are_reused_and_limited(http: HttpTransport) -> None:
    with http_server(lambda *_: FINE) as server:
        for _ in range(3):
            answers = dict(http.exchange((number, post(server.port, b"%d" % number)) for number in range(1, 41)))
            assert sorted(answers) == list(range(1, 41))
            assert {status(answer) for answer in answers.values()} == {200}
        assert 1 <= server.connections <= 8
        assert sorted(arrived.body for arrived in server.arrived) == sorted(b"%d" % n for n in range(1, 41) for _ in "123")


def test_an_unanswered_post_is_never_sent_again_by_libcurl(http: HttpTransport) -> None:
    with http_server(lambda _, number: FINE if number == 1 else LOST) as server:
        assert status(http.request(post(server.port))) == 200
        answer = http.request(post(server.port))
        assert isinstance(answer, Uncertain)
        assert answer.code == "no_answer"
        assert len(server.arrived) == 2
        assert server.connections == 1


def test_a_get_may_be_repeated(http: HttpTransport) -> None:
    with http_server(lambda _, number: LOST if number == 2 else FINE) as server:
        assert status(http.request(post(server.port, b""))) == 200
        assert status(http.request(post(server.port, b""))) == 200
        assert [arrived.method for arrived in server.arrived] == ["GET"] * 3


def test_a_request_never_sent_is_unavailable(http: HttpTransport) -> None:
    unresolved = HttpRequest("http://nobody.invalid/", HEADERS, b"x")
    with http_server(lambda *_: FINE) as plain:
        answers = [http.request(post(closed_port())), http.request(unresolved), http.request(post(plain.port, scheme="https"))]
        assert plain.arrived == []
    assert [type(answer) for answer in answers] == [Unavailable] * 3


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "no_answer"),
        (b"HTTP/1.1 200 OK\r\nX-A: b\r\n", "answer_cut"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", "answer_cut"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", "answer_cut"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (RESPONSE_BYTES_MAX + 1), "answer_too_long"),
    ],
    ids=["none", "head", "second head", "body", "endless"],
)
def test_a_sent_request_without_a_full_answer_is_uncertain(http: HttpTransport, raw: bytes, code: str) -> None:
    with http_server(lambda *_: Answer(raw, close=True)) as server:
        answer = http.request(post(server.port))
        assert isinstance(answer, Uncertain)
        assert answer.code == code
        assert len(server.arrived) == 1


def test_a_timeout_after_sending_is_uncertain() -> None:
    http = HttpTransport(timeout_seconds=0.1)
    with http_server(lambda *_: Answer(b"HTTP/1.1 200 OK\r\n")) as server:
        answer = http.request(post(server.port))
        http.close()
    assert isinstance(answer, Uncertain)
    assert answer.code == "timeout"


def test_redirects_are_not_followed(http: HttpTransport) -> None:
    with http_server(lambda *_: http_answer(307, b"", "Location: /elsewhere")) as server:
        assert status(http.request(post(server.port))) == 307
        assert len(server.arrived) == 1


def test_exchanges_may_overlap_and_be_abandoned(http: HttpTransport) -> None:
    with http_server(lambda request, _: http_answer(200, request.body)) as server:
        outer = http.exchange((number, post(server.port, b"outer")) for number in range(30))
        first = next(outer)
        inner = [answer for _, answer in http.exchange((number, post(server.port, b"inner")) for number in range(30))]
        rest = [first, *outer]
        abandoned = http.exchange((number, post(server.port)) for number in range(30))
        next(abandoned)
        abandoned.close()
        assert status(http.request(post(server.port))) == 200
    assert {answer.body for answer in inner if isinstance(answer, HttpResponse)} == {b"inner"}
    assert [answer.body for _, answer in rest if isinstance(answer, HttpResponse)] == [b"outer"] * 30


def test_a_forked_child_uses_its_own_connections(http: HttpTransport) -> None:
    with http_server(lambda *_: FINE) as server:
        assert status(http.request(post(server.port))) == 200
        child = os.fork()
        if child == 0:
            os._exit(0 if status(http.request(post(server.port))) == 200 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert status(http.request(post(server.port))) == 200
        assert server.connections == 2
        assert len(server.arrived) == 3


def test_headers_are_read_from_the_final_answer() -> None:
    head = (b"HTTP/1.1 103 Early\r\n", b"X-A: early\r\n", b"\r\n", b"HTTP/1.1 200 OK\r\n", b"x-b:  late \r\n", b"\r\n")
    answer = HttpResponse(200, head)
    assert answer.header("X-B") == "late"
    assert answer.header("X-A") is None


def test_a_key_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="Authorization"):
        header_lines({"Authorization": "Bearer a\r\nX-Evil: 1"})


def test_tls_requires_a_trusted_certificate(http: HttpTransport, tmp_path: Path) -> None:
    ca_file, context = certificate(tmp_path)
    trusting = HttpTransport(ca_file=str(ca_file), timeout_seconds=5)

    def secure(request: ReceivedRequest, _: int) -> Answer:
        return http_answer(200, request.body)

    with http_server(secure, tls=context) as server:
        stranger = http.request(post(server.port, scheme="https"))
        friend = trusting.request(post(server.port, scheme="https"))
        trusting.close()
    assert isinstance(stranger, Unavailable)
    assert stranger.code == "certificate"
    assert status(friend) == 200


def test_http_2_uses_one_connection(tmp_path: Path) -> None:
    ca_file, context = certificate(tmp_path)
    context.set_alpn_protocols(["h2", "http/1.1"])
    http = HttpTransport(ca_file=str(ca_file), timeout_seconds=5)
    with http2_server(context) as server:
        answers = [answer for _, answer in http.exchange((number, post(server.port, scheme="https")) for number in range(50))]
        http.close()
    assert [status(answer) for answer in answers] == [200] * 50
    assert (server.connections, len(server.arrived)) == (1, 50)


def test_a_slow_first_response_delays_no_other_request(tmp_path: Path) -> None:
    ca_file, context = certificate(tmp_path)
    others = threading.Event()

    def first_is_last(request: ReceivedRequest, number: int) -> Answer:
        if number == 1:
            others.wait(10)  # until the others have their responses
        elif number == 48:
            others.set()
        return http_answer(200, request.body)

    for tls, scheme in ((None, "http"), (context, "https")):
        others.clear()
        http = HttpTransport(concurrency=48, ca_file=str(ca_file), timeout_seconds=5)
        with http_server(first_is_last, tls=tls) as server:
            answers = dict(http.exchange((number, post(server.port, b"%d" % number, scheme)) for number in range(48)))
            http.close()
        assert {status(answer) for answer in answers.values()} == {200}


def test_a_slow_first_connection_delays_the_others_no_longer_than_the_bound(tmp_path: Path) -> None:
    ca_file, context = certificate(tmp_path)
    others = threading.Event()
    http = HttpTransport(concurrency=8, ca_file=str(ca_file), timeout_seconds=20, connect_timeout_seconds=10, open_seconds_max=0.1)
    order = []
    with http_server(
        lambda request, _: http_answer(200, request.body), context, lambda number: number > 1 or others.wait(8)
    ) as server:
        for tag, answer in http.exchange((number, post(server.port, b"%d" % number, "https")) for number in range(8)):
            order.append((tag, status(answer)))
            if len(order) == 7:
                others.set()
        http.close()
    assert order[-1] == (0, 200)  # its handshake went on when the others had their responses
    assert len(order) == 8


def test_http_2_carries_many_requests_on_few_connections(tmp_path: Path) -> None:
    ca_file, context = certificate(tmp_path)
    context.set_alpn_protocols(["h2", "http/1.1"])
    http = HttpTransport(concurrency=200, ca_file=str(ca_file), timeout_seconds=5)
    with http2_server(context) as server:
        for _ in range(2):
            answers = [answer for _, answer in http.exchange((n, post(server.port, scheme="https")) for n in range(200))]
            assert [status(answer) for answer in answers] == [200] * 200
        http.close()
    assert server.connections <= 2  # libcurl puts up to 100 requests at a time on one


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a self-signed certificate for localhost: its file, and a server context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca_file, key_file = folder / "ca.pem", folder / "key.pem"
    ca_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca_file, key_file)
    return ca_file, context
