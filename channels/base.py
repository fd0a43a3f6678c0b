"""What every channel adapter promises, and the words they share. Pure: standard library only.

An adapter turns an `Outbound` into a request of its provider, hands it over, and says of each outbound exactly once either
`Receipt` or one of the seven errors below. It never retries: whether a message may leave again is decided elsewhere, because
no provider here offers an idempotency key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias


class Channel(StrEnum):
    """A way to reach a person."""

    PUSH = "push"
    EMAIL = "email"
    SMS = "sms"
    WHATSAPP = "whatsapp"


# -- what goes out -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """A text with gaps: `words` stand around them, one more than there are gaps; `gaps` are the numbers of the values that fill
    them."""

    words: tuple[str, ...]
    gaps: tuple[int, ...]

    def fill(self, values: Sequence[str]) -> str:
        """The text with these values in its gaps."""
        pieces = [""] * (2 * len(self.gaps) + 1)
        pieces[::2] = self.words
        pieces[1::2] = [values[gap] for gap in self.gaps]
        return "".join(pieces)


@dataclass(frozen=True, slots=True, eq=False)
class MailTemplate:
    """What all mails have in common that were written along one path through their template. The object itself is its identity."""

    subject: TextTemplate
    html: TextTemplate
    text: TextTemplate


@dataclass(frozen=True, slots=True)
class Email:
    """A rendered e-mail. `headers` carries what a commercial mail owes its reader, such as RFC 8058's two."""

    sender_name: str
    sender_address: str
    subject: str
    html: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MergedEmail:
    """A rendered e-mail that nobody has put together yet: its parts are a form's, filled with these values. Whoever sends many of
    one form may never have to; for everybody else `assemble` is the same mail in one piece.
    """

    sender_name: str
    sender_address: str
    template: MailTemplate
    values: tuple[str, ...]
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def subject(self) -> str:
        """The subject, put together."""
        return self.template.subject.fill(self.values)

    def assemble(self) -> Email:
        """The mail, put together."""
        template, values = self.template, self.values
        return Email(
            self.sender_name,
            self.sender_address,
            self.subject,
            template.html.fill(values),
            template.text.fill(values),
            self.headers,
        )


@dataclass(frozen=True, slots=True)
class Sms:
    """A rendered text message."""

    text: str


@dataclass(frozen=True, slots=True)
class WhatsApp:
    """An approved WhatsApp template and the values for its numbered places ("1", "2", …).

    Or a `text` in free words in place of both: WhatsApp takes it within a day of the person's own words, and never else.
    """

    content_sid: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How a notification behaves on its device. What is not said here is left to the app and its platform.

    Of several notifications with one `collapse_key`, a device that was away gets the last, and one that shows an earlier puts the
    later in its place. FCM keeps messages of four keys per device at most.
    """

    collapse_key: str = ""
    ttl_seconds: int | None = None  # how long it may wait for its device
    priority: str = ""  # "high" wakes a sleeping device, "normal" does not
    sound: str = ""  # "default", or a file of the app's
    badge: int | None = None  # the number on the app's icon; 0 takes it away
    image: str = ""  # an https address
    icon: str = ""  # a drawable of the Android app's
    android_channel: str = ""  # the Android app's notification channel, which people can switch off by itself


@dataclass(frozen=True, slots=True)
class Push:
    """A rendered notification for one device; `data` goes to the app unseen and holds ids and links only."""

    title: str
    body: str
    link: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    options: PushOptions = field(default=PushOptions(), repr=False)


PlainContent: TypeAlias = Email | Sms | WhatsApp | Push
Content: TypeAlias = PlainContent | MergedEmail


def assemble(content: Content) -> PlainContent:
    """The content as a person sees it: a mail in pieces is put together."""
    return content.assemble() if isinstance(content, MergedEmail) else content


@dataclass(frozen=True, slots=True)
class Outbound:
    """One hand-off: one content for one address.

    `id` is the message's id; it says nothing about the person, travels with the message where the provider lets it, and comes
    back in events. A push to a person with three devices is three outbounds of one id. `flow` is the campaign it belongs to, "" for
    a trigger: flows that share a provider's rate get equal shares of it. `sender` is whom an SMS or WhatsApp message is from, where
    that is not the account's own sender; an e-mail's stands in its content.
    """

    id: str
    channel: Channel
    address: str
    content: Content
    ttl_seconds: int | None = None
    flow: str = ""
    sender: str = ""


# -- what comes back ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Receipt:
    """The provider took the message. `name` is the provider's own id for it."""

    name: str


class ChannelError(Exception):
    """Why a message was not (surely) taken. `code` is the provider's own, or a word of ours where it gave none.

    An error is a value here: adapters yield it, they do not raise it. It never holds an address or a body: providers echo both
    in their messages, so only the code travels on, with `hint` in our own words.
    """

    def __init__(self, code: str, hint: str = "") -> None:
        super().__init__(f"{code}: {hint}" if hint else code)
        self.code = code
        self.hint = hint


class Rejected(ChannelError):
    """This message will never be taken -> failed."""


class BadAddress(ChannelError):
    """This address will never work on this channel -> failed, and the address is suppressed."""


class NoAddress(BadAddress):
    """It is no address at all -> as `BadAddress`, on every channel that takes addresses of its kind."""


class OptedOut(ChannelError):
    """The provider knows a no that we had not heard -> failed, and the opt-out is recorded."""


class Throttled(ChannelError):
    """Too fast, nothing was taken -> waiting, no attempt spent. `retry_after_seconds` is None where the provider says nothing."""

    def __init__(self, code: str, hint: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(code, hint)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(ChannelError):
    """Nothing left our house (the connection failed, or the provider said so in a way that is safe) -> waiting with backoff."""


class Uncertain(ChannelError):
    """It may have gone: the answer was lost, late or unreadable -> unresolved, never sent again by a machine."""


class Misconfigured(ChannelError):
    """Our keys or settings are wrong -> the channel stops, a person is told, nothing is lost."""


Result: TypeAlias = Receipt | ChannelError


# -- later news --------------------------------------------------------------------------------------------------------


class EventKind(StrEnum):
    """The one vocabulary for what providers report after hand-off."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    READ = "read"
    BOUNCED = "bounced"  # the address is dead -> suppress
    FAILED = "failed"  # this message failed, the address is not to blame
    HALTED = "halted"  # this message failed because our account or sender is not fit -> the channel stops
    COMPLAINED = "complained"
    OPTED_OUT = "opted_out"
    OPTED_IN = "opted_in"
    ENGAGED = "engaged"  # opened, clicked
    UNKNOWN = "unknown"  # recorded, acted on by nobody, shown to a person


@dataclass(frozen=True, slots=True)
class RetryHint:
    """What surely did not arrive may leave again: not before `wait_seconds`, each time twice as long, at most `times_max` times."""

    wait_seconds: float
    times_max: int


@dataclass(frozen=True, slots=True)
class Event:
    """Later news of a message. `id` is unique per provider: the same news twice has the same id.

    `again` stands with a failure after which the message may be repeated, for it reached nobody; `strikes` with one that says
    little of the address alone, and much when it is the so-manieth in a row. `extra` are the fields that no rule knows, as text and
    without addresses: see `channels.extras`.
    """

    provider: str
    id: str
    channel: Channel
    kind: EventKind
    at: datetime
    message_id: str | None = None
    receipt: str | None = None
    code: str | None = None
    retry_hint: RetryHint | None = None
    soft_bounce_limit: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """A message that a provider says it took, when asked: its receipt, when that was, the text as it shows it, and all its news."""

    receipt: str
    at: datetime
    text: str
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class InboundText:
    """A message from a person. `id` is the provider's; `opt_out` its own reading (STOP, START, HELP), where it gives one."""

    id: str
    channel: Channel
    address: str
    text: str
    opt_out: str | None = None


class BadSignature(Exception):
    """A webhook call that was not, or can't be shown to be, the provider's. `why` is one word for our log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadPayload(Exception):
    """A webhook call with a right signature whose body can't be read."""


# -- the promise -------------------------------------------------------------------------------------------------------


class Provider(Protocol):
    """The API behind one channel. Safe to use from one thread at a time; cheap to make, holds pooled connections."""

    name: str
    channel: Channel

    def send(self, batch: Sequence[Outbound]) -> Iterator[tuple[Outbound, Result]]:
        """Hand over a batch, concurrently; yield each outbound exactly once, as the answers come. Never raises for one of them."""
        ...

    def check(self) -> ChannelError | None:
        """Ask the provider, without sending, whether our keys and settings work. None when they do."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class SupportsLookup(Protocol):
    """What some providers can do besides: say afterwards what they took. Reached through `channels.traces`."""

    name: str

    def look_up(self, address: str, since: datetime) -> Sequence[ProviderRecord] | ChannelError:
        """All that the provider took for an address since a moment, whoever of ours sent it; an error where it can't tell
        completely, which is `Rejected` where it never will.
        """
        ...
