"""Where webhooks may go: public addresses, over https, by one reading of the URL, and nowhere else whatever DNS says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dispatcher.events.webhook_address import BadWebhookUrl, is_public, parse_url
from dispatcher.events.webhook_request import WebhookConnection
from tests.channels.test_http import certificate
from tests.support.http_servers import Answer, http_answer, http_server
from tests.support.webhook_receiver import receiver

HOSTS = frozenset({"127.0.0.1", "receiver.example"})

INTERNAL = """
    127.0.0.1 127.1.2.3 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 240.0.0.1
    192.0.0.9
    ::1 :: fe80::1 fc00::1 fd00:ec2::254 fec0::1 ff02::1 ::ffff:10.0.0.1 ::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::10.0.0.1
    64:ff9b:1::1 2002:a00:1:: 2001:db8::1 2001::1
"""


@pytest.mark.parametrize("address", INTERNAL.split())
def test_an_internal_address_is_refused_however_it_is_reached(address: str) -> None:
    assert not is_public(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(BadWebhookUrl, match="not a public address"):
        parse_url(f"https://{host}/")
    connection = WebhookConnection(frozenset(), lambda *_: ["8.8.8.8", address])
    assert connection.post("https://events.example.com/", {}, b"{}").error == "private_address"


@pytest.mark.parametrize("address", ["8.8.8.8", "2a00:1450:400e::1", "::ffff:8.8.8.8"])
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1./",
        "https://user:password@events.example.com/",
        "https://events.example.com\\@10.0.0.1/",
        "https://events.example.com#@10.0.0.1/",
        "https://events.example.com/a b",
        "https://events.example.com:0/",
        "https://events.example.com:99999/",
        "https://événements.example/",
        "https:///hook",
        "https://[::1",
        "http://events.example.com/",
        "ftp://events.example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "",
        "https://" + "a" * 2_000,
    ],
)
def test_a_url_that_can_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(BadWebhookUrl):
        parse_url(url)


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """DNS that changes between check and connection: the second answer is never asked for."""
    asked: list[str] = []

    def resolve(host: str, _: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    with receiver() as crm:
        url = crm.url.replace("127.0.0.1", "receiver.example")
        connection = WebhookConnection(HOSTS, resolve)
        assert connection.post(url, {"webhook-id": "1"}, b"{}").status == 204
        assert asked == ["receiver.example"]
        assert crm.requests[0].headers["host"] == f"receiver.example:{crm.server.port}"


def test_libcurl_opens_no_socket_to_another_address() -> None:
    """A guard below the resolver: whatever makes libcurl try another address, there is no connection."""
    with receiver() as crm:
        connection = WebhookConnection(HOSTS, lambda *_: ["127.0.0.2"])
        answer = connection.post(crm.url, {}, b"{}")
        assert answer.status is None
        assert not crm.requests


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as crm, receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert WebhookConnection(HOSTS).post(crm.url, {}, b"{}").status == 204
        assert not proxy.requests


def test_a_call_does_not_start_when_its_lease_is_nearly_over() -> None:
    with receiver() as crm:
        answer = WebhookConnection(HOSTS).post(crm.url, {}, b"{}", may_start=lambda: False)
        assert (answer.status, answer.error) == (None, "lease_over")
        assert not crm.requests


def test_a_receiver_needs_a_trusted_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ca_file, context = certificate(tmp_path)
    with http_server(lambda *_: http_answer(204), tls=context) as server:
        url = f"https://127.0.0.1:{server.port}/"
        hosts = frozenset({"127.0.0.1"})
        assert WebhookConnection(hosts, lambda *_: ["127.0.0.1"]).post(url, {}, b"{}").error == "certificate"
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        assert WebhookConnection(hosts, lambda *_: ["127.0.0.1"]).post(url, {}, b"{}").status == 204


def test_no_more_of_an_answer_is_read_than_64_kilobytes() -> None:
    endless = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 200_000)
    with receiver(lambda *_: endless) as crm:
        answer = WebhookConnection(HOSTS).post(crm.url, {}, b"{}")
        assert (answer.status, answer.error) == (200, None)
