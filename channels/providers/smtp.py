"""E-mail over SMTP, for a relay of your own. One connection per batch, one mail after the other."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial
from queue import SimpleQueue
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
    StaleClaim,
    Throttled,
    Unavailable,
    Uncertain,
)
from channels.http_adapter import DATA_ERRORS, message_ids
from channels.registry import ProviderPlugin
from channels.send_window import SendWindow
from channels.validation import check_content

# Do not fold lines where possible: a folded List-Unsubscribe becomes encoded words, which mail clients do not follow.
_POLICY = SMTP.clone(max_line_length=990)
CONNECTIONS, CONNECTIONS_MAX = 8, 50  # to the relay, per worker process
_LEADING_DOT = re.compile(rb"(?m)^\.")
_ENHANCED = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})\b")
_SENDER_ADDRESS = {"5.1.7", "5.1.8"}  # the two 5.1.x codes (RFC 3463) about the sender's address
_BOOLEANS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class _Server:
    host: str
    port: int
    user: str
    password: str
    tls: bool
    starttls: bool
    connections: int


def _parse_url(url: str) -> _Server:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    starttls = options.pop("starttls", "yes").lower()
    connections = options.pop("connections", str(CONNECTIONS))
    if not (connections.isascii() and connections.isdigit() and 1 <= int(connections) <= CONNECTIONS_MAX):
        raise ValueError(f"SMTP_URL: connections must be a number from 1 to {CONNECTIONS_MAX}")
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or options or starttls not in _BOOLEANS:
        raise ValueError("SMTP_URL must look like smtp://user:password@host:587?starttls=yes&connections=8 or smtps://…")
    tls = parts.scheme == "smtps"
    return _Server(
        host=parts.hostname,
        port=parts.port or (465 if tls else 587),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
        starttls=_BOOLEANS[starttls] and not tls,
        connections=int(connections),
    )


class Smtp:
    """The adapter for a mail relay. `url`: smtp://user:password@host:port?starttls=yes|no&connections=8, or smtps://.

    STARTTLS is required unless it is disabled. A receipt is the mail's Message-ID, made from the message id, because a relay gives
    no id. Raises ValueError for an invalid URL.
    """

    name = "smtp"
    channel = Channel.EMAIL

    def __init__(self, url: str, timeout_seconds: float = 30.0, ca_file: str | None = None) -> None:
        self._server, self._timeout_seconds, self._ca_file = _parse_url(url), timeout_seconds, ca_file

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """See `channels.base.Provider`. Each connection has a thread, because a relay takes one mail after the other.

        If the relay cannot be reached, the rest of the batch is not tried.
        """
        waiting, results, stopped = deque(batch), SimpleQueue[tuple[Outbound, Result]](), threading.Event()

        def work() -> None:
            session = _Session(self._connect)
            try:
                while waiting and not stopped.is_set():
                    with suppress(IndexError):  # another thread took the last one
                        outbound = waiting.popleft()
                        results.put((outbound, _send_one(session, outbound, window)))
            finally:
                session.end()

        count = min(self._server.connections, len(batch))
        threads = [threading.Thread(target=work, name=f"smtp-{number}", daemon=True) for number in range(count)]
        try:
            for thread in threads:
                thread.start()
            for _ in batch:
                yield results.get()
        finally:  # also when the caller stops early: no thread may go on sending
            stopped.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join(self._timeout_seconds)

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
    """Reads a relay's replies line by line. A complete reply must arrive within `seconds`: otherwise a relay that sends without
    end, or one byte at a time, would block the worker for ever.
    """

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock, self._seconds = sock, seconds
        self._buffer = b""
        self._deadline = 0.0

    def begin(self) -> None:
        """Start the time limit of a reply."""
        self._deadline = time.monotonic() + self._seconds

    def readline(self, limit: int) -> bytes:
        """Return the next line, or the part up to `limit` or the end of the stream. Raises OSError."""
        while b"\n" not in self._buffer and len(self._buffer) < limit:
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            self._sock.settimeout(remaining)
            piece = self._sock.recv(8192)
            if not piece:
                break
            self._buffer += piece
        self._sock.settimeout(self._seconds)
        end = self._buffer.find(b"\n") + 1 or len(self._buffer)
        line, self._buffer = self._buffer[: min(end, limit)], self._buffer[min(end, limit) :]
        return line

    def close(self) -> None:
        """Do nothing: the client closes the socket."""


class _Client(smtplib.SMTP):
    """smtplib's client, with a time limit for each reply."""

    def getreply(self) -> tuple[int, bytes]:
        """See `smtplib.SMTP.getreply`."""
        sock, seconds = self.sock, self.timeout
        if sock is not None:
            self.file = self.file or _ReplyReader(sock, seconds)
            self.file.begin()
        return super().getreply()


class _TlsClient(_Client, smtplib.SMTP_SSL):
    """The same, over TLS from the first byte."""


class _Session:
    """A connection that opens for the first mail and reopens after a loss, but not after opening has failed."""

    def __init__(self, connect: Callable[[], smtplib.SMTP]) -> None:
        self._connect = connect
        self._client: smtplib.SMTP | None = None
        self._error: ChannelError | None = None

    def open(self) -> ChannelError | None:
        if self._client is None and self._error is None:
            try:
                self._client = self._connect()
            except smtplib.SMTPAuthenticationError as error:
                self._error = _error_from_reply(error.smtp_code) or Unavailable("unreadable")
            except smtplib.SMTPNotSupportedError:
                self._error = Misconfigured("not_supported", "the relay offers no STARTTLS, or no login")
            except (smtplib.SMTPException, OSError, ValueError):
                self._error = Unavailable("refused", "the relay could not be reached")
        return self._error

    def transact(self, sender: str, recipient: str, mail: bytes, may_start: Callable[[], bool]) -> ChannelError | None:
        """Send one mail. Returns None if the relay took it. `may_start` is asked between the relay's 354 and the first byte."""
        client, sending = self._client, False
        if client is None:
            return self._error or Unavailable("not_open")
        try:
            client.ehlo_or_helo_if_needed()
            for step, at_recipient in ((partial(client.mail, sender), False), (partial(client.rcpt, recipient), True)):
                code, text = step()
                if code not in {250, 251}:
                    return self._reset(_error_from_reply(code, text, at_recipient=at_recipient) or Unavailable("unreadable"))
            code, text = client.docmd("data")
            if code != 354:
                return self._reset(_error_from_reply(code, text) or Unavailable("unreadable"))
            if not may_start():
                self._drop()  # without the final dot the relay has no mail
                return StaleClaim()
            sending = True
            client.send(_dot_stuffed(mail))
            code, text = client.getreply()
        except (smtplib.SMTPException, OSError, ValueError):
            self._drop()
            return Uncertain("connection_lost") if sending else Unavailable("connection_lost")
        return None if code == 250 else self._reset(_error_from_reply(code, text) or Uncertain("unreadable"))

    def end(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(smtplib.SMTPException, OSError, ValueError):
                client.quit()
            client.close()

    def _reset(self, error: ChannelError) -> ChannelError:
        """Reset the relay's state of this mail, for the next one."""
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


def _dot_stuffed(mail: bytes) -> bytes:
    """Return a mail as DATA carries it (RFC 5321, 4.5.2): a leading dot is doubled, a line with one dot ends it."""
    return _LEADING_DOT.sub(b"..", mail if mail.endswith(b"\r\n") else mail + b"\r\n") + b".\r\n"


def _send_one(session: _Session, outbound: Outbound, window: SendWindow) -> Result:
    if not window.is_open():
        return StaleClaim()
    try:
        email = check_content(outbound, Channel.EMAIL, Email)
        mail = _mime_message(outbound, email)
        data = mail.as_bytes()
    except ChannelError as refusal:
        return refusal.with_traceback(None)  # its stack frames hold the message
    except DATA_ERRORS as error:
        return Rejected("unbuildable", type(error).__name__)
    may_start = partial(window.may_start_sending, message_ids(outbound))
    failure = session.open() or session.transact(email.sender_address, outbound.address, data, may_start)
    return failure or Receipt(str(mail["Message-ID"]))


def _mime_message(outbound: Outbound, email: Email) -> EmailMessage:
    domain = email.sender_address.partition("@")[2]
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = Address(email.sender_name, addr_spec=email.sender_address)
    mail["To"] = Address(addr_spec=outbound.address)
    if email.reply_to:
        mail["Reply-To"] = Address(addr_spec=email.reply_to)
    mail["Subject"] = email.subject
    mail["Message-ID"] = f"<{quote(outbound.id, safe='')}@{domain}>"
    for name, value in email.headers:
        mail[name] = value
    mail.set_content(email.text, cte="quoted-printable")
    mail.add_alternative(email.html, subtype="html", cte="quoted-printable")
    return mail


def _error_from_reply(code: int, text: bytes = b"", *, at_recipient: bool = False) -> ChannelError | None:
    """Return what a refusal means, by RFC 5321's code and RFC 3463's enhanced code. None if it is not a refusal."""
    match = _ENHANCED.match(text)
    enhanced = match[1].decode() if match else ""
    name = f"{code} {enhanced}".strip()
    if code in {450, 452}:
        return Throttled(name, "busy: mailbox, greylisting or storage")
    if code in {530, 534, 535, 538}:
        return Misconfigured(name, "the relay refused the credentials")
    if 400 <= code < 500:
        return Unavailable(name, "temporarily refused")
    if at_recipient and enhanced.startswith("5.1.") and enhanced not in _SENDER_ADDRESS:
        return BadAddress(name, "no such mailbox or domain")
    return Rejected(name) if 500 <= code < 600 else None


# -- the plugin ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SmtpAccount:
    """A relay, with our credentials in its URL."""

    url: str = field(repr=False)


PLUGIN = ProviderPlugin(
    name=Smtp.name,
    needs={Channel.EMAIL: ("SMTP_URL",)},
    variable_prefixes=("SMTP_",),
    read_account=lambda reader: SmtpAccount(
        reader.url_with_password("SMTP_URL", ("smtp", "smtps"), about="the relay, such as `smtp://user:password@host:587`")
    ),
    make_adapter=lambda account, _: Smtp(account.url),
)
