"""One broker URL for Celery and redis-py."""

from __future__ import annotations

import ssl
from urllib.parse import parse_qs, urlsplit

import pytest
from kombu.utils import url as kombu_url
from redis.connection import parse_url

from dispatcher.domain.broker_url import BadBrokerUrl, common_spelling


@pytest.mark.parametrize("given", ["?ssl_cert_reqs=CERT_REQUIRED", "?ssl_cert_reqs=required", ""])
def test_both_clients_check_the_certificate(given: str) -> None:
    url = common_spelling(f"rediss://:secret@broker.example:6380/2{given}")
    assert parse_url(url)["ssl_cert_reqs"] == "required"  # type: ignore[no-untyped-call]
    assert kombu_url.parse_url(url)["ssl"] == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def test_other_options_stay_as_they_are() -> None:
    url = common_spelling("rediss://broker.example/0?ssl_ca_certs=/etc/ssl/ca.pem&ssl_cert_reqs=CERT_NONE")
    assert parse_qs(urlsplit(url).query) == {"ssl_ca_certs": ["/etc/ssl/ca.pem"], "ssl_cert_reqs": ["none"]}
    assert common_spelling("redis://broker.example/0") == "redis://broker.example/0"
    assert common_spelling("redis+socket:///run/valkey?virtual_host=3") == "redis+socket:///run/valkey?virtual_host=3"


def test_each_of_several_servers_has_its_certificate_checked() -> None:
    url = common_spelling("amqps://u:secret@a.example//;amqps://u:secret@b.example//?ssl_cert_reqs=CERT_NONE;amqp://c.example//")
    assert url.split(";") == [
        "amqps://u:secret@a.example//?ssl_cert_reqs=required",
        "amqps://u:secret@b.example//?ssl_cert_reqs=none",
        "amqp://c.example//",
    ]


def test_an_unknown_spelling_is_refused_without_showing_the_url() -> None:
    with pytest.raises(BadBrokerUrl, match="ssl_cert_reqs must be one of required, optional, none, CERT_REQUIRED") as caught:
        common_spelling("rediss://:secret@broker.example/0?ssl_cert_reqs=always")
    assert "secret" not in str(caught.value)
