"""SMTP adapter: the mail as a mail client parses it, and the relay's replies."""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes
from email.policy import default

import pytest

from channels.base import (
    BadAddress,
    Channel,
    ChannelError,
    Misconfigured,
    Outbound,
    Receipt,
    Rejected,
    Result,
    Throttled,
    Unavailable,
    Uncertain,
)
from channels.providers.smtp import Smtp
from channels.send_window import window_of
from tests.support.http_servers import smtp_server
from tests.support.provider_cases import EMAIL

MAIL = Outbound("camp:1", Channel.EMAIL, "margaux@home.example", EMAIL)


def deliver(replies: dict[str, str | None], *batch: Outbound) -> tuple[list[Result], list[bytes], int]:
    """Return results, mails that arrived and the number of connections; `replies` are by command."""
    usual = {"data": "354 go", ".": "250 2.0.0 queued"}

    def script(line: str, _: bytes) -> str | None:
        word = line.lower().split()[0]
        return {**usual, **replies}.get(word, "250 ok")

    with smtp_server(script) as server:
        smtp = Smtp(f"smtp://127.0.0.1:{server.port}?starttls=no&connections=1", timeout_seconds=5)
        found = [result for _, result in smtp.send(batch or [MAIL], window_of(30))]
    return found, server.arrived, server.connections


def test_mails_keep_content_and_unsubscribe_header() -> None:
    link = f"<https://bank.example/u/{'t' * 300}>"
    email = replace(EMAIL, subject="Été à prix doux " * 10, text="Ça va?\n.\n..fin", headers=(("List-Unsubscribe", link),))
    results, (raw,), _ = deliver({}, replace(MAIL, content=email))
    mail = message_from_bytes(raw.replace(b"\r\n..", b"\r\n."), policy=default)
    assert results == [Receipt("<camp%3A1@bank.example>")]
    assert mail["Message-ID"] == "<camp%3A1@bank.example>"
    assert mail["Subject"] == email.subject
    assert (mail["From"], mail["To"]) == ("KBC <news@bank.example>", "margaux@home.example")
    assert f"List-Unsubscribe: {link}\r\n".encode() in raw
    text, html = mail.iter_parts()
    assert text.get_content().splitlines() == email.text.splitlines()
    assert html.get_content().strip() == email.html


@pytest.mark.parametrize(
    ("command", "reply", "error"),
    [
        ("rcpt", "550 5.1.1 no such user", BadAddress),
        ("rcpt", "553 5.1.3 bad syntax", BadAddress),
        ("rcpt", "550 5.1.8 bad sender", Rejected),
        ("rcpt", "550 5.7.1 policy", Rejected),
        ("rcpt", "550 no", Rejected),
        ("rcpt", "450 4.2.1 greylisted", Throttled),
        ("rcpt", "451 4.3.0 trouble", Unavailable),
        ("mail", "530 5.7.0 log in first", Misconfigured),
        ("mail", "550 5.1.1 odd", Rejected),
        ("mail", "nonsense", Unavailable),
        ("rcpt", None, Unavailable),
        ("data", "554 5.5.1 no", Rejected),
        (".", "552 5.3.4 too big", Rejected),
        (".", "451 4.3.0 later", Unavailable),
        (".", "nonsense", Uncertain),
        (".", None, Uncertain),
    ],
)
def test_each_reply_has_its_error(command: str, reply: str | None, error: type[ChannelError]) -> None:
    results, arrived, _ = deliver({command: reply})
    assert [type(result) for result in results] == [error]
    assert len(arrived) == (command == ".")


def test_a_batch_shares_a_connection_and_reconnects() -> None:
    batch = [replace(MAIL, id=f"m-{number}") for number in range(5)]
    assert deliver({}, *batch)[2] == 1
    assert deliver({"rcpt": "550 5.1.1 no"}, *batch)[2] == 1
    results, arrived, connections = deliver({".": None}, *batch)
    assert [type(result) for result in results] == [Uncertain] * 5
    assert len(arrived) == connections == 5


def test_without_tls_neither_password_nor_mail_is_sent() -> None:
    with smtp_server(lambda *_: "250 ok") as server:
        smtp = Smtp(f"smtp://user:secret@127.0.0.1:{server.port}", timeout_seconds=5)
        assert [type(result) for _, result in smtp.send([MAIL], window_of(30))] == [Misconfigured]
        assert isinstance(smtp.check(), Misconfigured)
    assert server.arrived == []


@pytest.mark.parametrize("url", ["http://a", "smtp://", "smtp://a?starttls=maybe", "smtp://a?x=1", ""])
def test_an_invalid_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="SMTP_URL"):
        Smtp(url)


def test_a_mail_has_its_reply_address() -> None:
    _, (with_one, without), _ = deliver({}, replace(MAIL, content=replace(EMAIL, reply_to="advice@bank.example")), MAIL)
    assert message_from_bytes(with_one, policy=default)["Reply-To"] == "advice@bank.example"
    assert message_from_bytes(without, policy=default)["Reply-To"] is None
