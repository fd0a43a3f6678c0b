"""E-mail over SMTP, for houses with a relay of their own. One connection per batch, one mail after the other."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from channels.base import (
    BadAddress,
    Channel,
    ChannelError,
    Email,
    Misconfigured,
    Outbound,
    Receipt,
    Rejected,
    Result,
    Throttled,
    Unavailable,
    Uncertain,
)
from channels.registry import ProviderPlugin
from channels.validation import check_content

# No line is folded that need not be: a folded List-Unsubscribe turns into encoded words, which no mailbox follows.
_POLICY = SMTP.clone(max_line_length=990)
_ENHANCED = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})\b")
_SENDER_ADDRESS = {"5.1.7", "5.1.8"}  # the two 5.1.x codes (RFC 3463) that speak of the sender's address
_BOOLEANS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class _Server:
    host: str
    port: int
    user: str
    password: str
    tls: bool
    starttls: bool


def _parse_url(url: str) -> _Server:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    starttls = options.pop("starttls", "yes").lower()
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or options or starttls not in _BOOLEANS:
        raise ValueError("SMTP_URL must look like smtp://user:password@host:587?starttls=yes or smtps://…")
    tls = parts.scheme == "smtps"
    return _Server(
        host=parts.hostname,
        port=parts.port or (465 if tls else 587),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
        starttls=_BOOLEANS[starttls] and not tls,
    )


class Smtp:
    """The adapter of a mail relay. `url`: smtp://user:password@host:port?starttls=yes|no, or smtps://.

    STARTTLS is demanded unless it is switched off. A receipt is the mail's Message-ID, which we make from the message's id:
    a relay gives no name of its own. Raises ValueError for an unreadable URL.
    """

    name = "smtp"
    channel = Channel.EMAIL

    def __init__(self, url: str, timeout_seconds: float = 30.0, ca_file: str | None = None) -> None:
        self._server, self._timeout_seconds, self._ca_file = _parse_url(url), timeout_seconds, ca_file

    def send(self, batch: Sequence[Outbound]) -> Iterator[tuple[Outbound, Result]]:
        """See `channels.base.Provider`. While the relay can't be reached, the rest of the batch is not tried."""
        session = _Session(self._connect)
        try:
            for outbound in batch:
                yield outbound, _send_one(session, outbound)
        finally:
            session.end()

    def check(self) -> ChannelError | None:
        """Connect and log in."""
        session = _Session(self._connect)
        try:
            return session.open()
        finally:
            session.end()

    def close(self) -> None:
        """Do nothing: a connection lasts for one batch."""

    def _connect(self) -> smtplib.SMTP:
        server, tls = self._server, ssl.create_default_context(cafile=self._ca_file)
        name, timeout = socket.gethostname(), self._timeout_seconds
        if server.tls:
            client: smtplib.SMTP = _TlsClient(server.host, server.port, name, timeout=timeout, context=tls)
        else:
            client = _Client(server.host, server.port, name, timeout=timeout)
        try:
            if server.starttls:
                client.starttls(context=tls)
            if server.user:
                client.login(server.user, server.password)
        except BaseException:
            client.close()
            raise
        return client


class _ReplyReader:
    """What a relay says, line by line. A whole reply has so many seconds: a relay that speaks without end, or a byte at a time,
    would otherwise hold us for ever.
    """

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock, self._seconds = sock, seconds
        self._buffer = b""
        self._deadline = 0.0

    def begin(self) -> None:
        """A reply is waited for."""
        self._deadline = time.monotonic() + self._seconds

    def readline(self, limit: int) -> bytes:
        """The next line, or what there is of it at the limit or at the end. Raises OSError."""
        while b"\n" not in self._buffer and len(self._buffer) < limit:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            piece = self._sock.recv(8192)
            if not piece:
                break
            self._buffer += piece
        self._sock.settimeout(self._seconds)
        end = self._buffer.find(b"\n") + 1 or len(self._buffer)
        line, self._buffer = self._buffer[: min(end, limit)], self._buffer[min(end, limit) :]
        return line

    def close(self) -> None:
        """The socket closes by itself."""


class _Client(smtplib.SMTP):
    """smtplib's client, with a limit to how long a reply may take."""

    def getreply(self) -> tuple[int, bytes]:
        """As smtplib has it."""
        sock, seconds = self.sock, self.timeout
        if sock is not None:
            self.file = self.file or _ReplyReader(sock, seconds)
            self.file.begin()
        return super().getreply()


class _TlsClient(_Client, smtplib.SMTP_SSL):
    """The same, over TLS from the first byte."""


class _Session:
    """A connection that opens at the first mail and again after a loss, but not again once opening has failed."""

    def __init__(self, connect: Callable[[], smtplib.SMTP]) -> None:
        self._connect = connect
        self._client: smtplib.SMTP | None = None
        self._fault: ChannelError | None = None

    def open(self) -> ChannelError | None:
        if self._client is None and self._fault is None:
            try:
                self._client = self._connect()
            except smtplib.SMTPAuthenticationError as error:
                self._fault = _error_from_reply(error.smtp_code) or Unavailable("unreadable")
            except smtplib.SMTPNotSupportedError:
                self._fault = Misconfigured("not_supported", "the relay offers no STARTTLS, or no login")
            except (smtplib.SMTPException, OSError, ValueError):
                self._fault = Unavailable("refused", "the relay could not be reached")
        return self._fault

    def transact(self, sender: str, recipient: str, mail: bytes) -> ChannelError | None:
        """One mail; None when the relay took it."""
        client, sending = self._client, False
        if client is None:
            return self._fault or Unavailable("not_open")
        try:
            client.ehlo_or_helo_if_needed()
            for step, at_recipient in ((partial(client.mail, sender), False), (partial(client.rcpt, recipient), True)):
                code, text = step()
                if code not in {250, 251}:
                    return self._start_over(_error_from_reply(code, text, at_recipient=at_recipient) or Unavailable("unreadable"))
            sending = True
            code, text = client.data(mail)
        except smtplib.SMTPDataError as error:  # DATA itself was refused, the mail stayed here
            return self._start_over(_error_from_reply(error.smtp_code) or Unavailable("unreadable"))
        except (smtplib.SMTPException, OSError, ValueError):
            self._drop()
            return Uncertain("connection_lost") if sending else Unavailable("connection_lost")
        return None if code == 250 else self._start_over(_error_from_reply(code, text) or Uncertain("unreadable"))

    def end(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(smtplib.SMTPException, OSError, ValueError):
                client.quit()
            client.close()

    def _start_over(self, error: ChannelError) -> ChannelError:
        """Clear what the relay holds of this mail, for the next one."""
        try:
            if self._client is not None and self._client.rset()[0] != 250:
                self._drop()
        except (smtplib.SMTPException, OSError, ValueError):
            self._drop()
        return error

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _send_one(session: _Session, outbound: Outbound) -> Result:
    try:
        email = check_content(outbound, Channel.EMAIL, Email)
        mail = _mime_message(outbound, email)
        letter = mail.as_bytes()
    except ChannelError as refusal:
        return refusal.with_traceback(None)  # its frames hold the message
    except Exception as error:
        return Rejected("unbuildable", type(error).__name__)
    fault = session.open() or session.transact(email.sender_address, outbound.address, letter)
    return fault or Receipt(str(mail["Message-ID"]))


def _mime_message(outbound: Outbound, email: Email) -> EmailMessage:
    domain = email.sender_address.partition("@")[2]
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = Address(email.sender_name, addr_spec=email.sender_address)
    mail["To"] = Address(addr_spec=outbound.address)
    mail["Subject"] = email.subject
    mail["Message-ID"] = f"<{quote(outbound.id, safe='')}@{domain}>"
    for name, value in email.headers:
        mail[name] = value
    mail.set_content(email.text, cte="quoted-printable")
    mail.add_alternative(email.html, subtype="html", cte="quoted-printable")
    return mail


def _error_from_reply(code: int, text: bytes = b"", *, at_recipient: bool = False) -> ChannelError | None:
    """What a refusal says: RFC 5321's code, and RFC 3463's finer one where given. None for what is no refusal."""
    found = _ENHANCED.match(text)
    finer = found[1].decode() if found else ""
    name = f"{code} {finer}".strip()
    if code in {450, 452}:
        return Throttled(name, "busy: mailbox, greylisting or storage")
    if code in {530, 534, 535, 538}:
        return Misconfigured(name, "the relay wants other credentials")
    if 400 <= code < 500:
        return Unavailable(name, "not taken, for now")
    if at_recipient and finer.startswith("5.1.") and finer not in _SENDER_ADDRESS:
        return BadAddress(name, "no such mailbox or domain")
    return Rejected(name) if 500 <= code < 600 else None


# -- the plugin ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SmtpAccount:
    """A relay, and who we are there."""

    url: str = field(repr=False)


PLUGIN = ProviderPlugin(
    name=Smtp.name,
    needs={Channel.EMAIL: ("SMTP_URL",)},
    variable_prefixes=("SMTP_",),
    read_account=lambda read: SmtpAccount(
        read.url_with_password("SMTP_URL", ("smtp", "smtps"), about="the relay, such as `smtp://user:password@host:587`")
    ),
    make_adapter=lambda account, _: Smtp(account.url),
)
