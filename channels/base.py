"""The `Provider` protocol, what adapters send and return, and their errors. Pure: standard library only.

An adapter turns each `Outbound` into a request and yields exactly one result for it: a `Receipt` or a `ChannelError`. It never
retries, because no provider here offers an idempotency key. `dispatcher.delivery.outcomes` decides whether a message is sent again.

    ChannelError                  meaning                                               action
      x Rejected                  the provider will never take this message             failed
      x BadAddress                this address will never work on this channel          failed, the address is suppressed
        + NoAddress               this is not an address at all                         the same, on every channel of its kind
      x OptedOut                  the provider has an opt-out that we do not have       failed, the opt-out is recorded
      x Throttled                 too fast, nothing was taken                           waiting, no attempt spent
      x Unavailable               nothing was sent                                      waiting with backoff, then dead
        + StaleClaim              nothing was sent: the claim's deadline had passed     waiting, no attempt spent
      x Uncertain                 the message may have been sent                        unresolved, never sent again by machine
      x Misconfigured             our keys or settings are wrong                        the channel stops, its messages wait

    BadSignature                  a webhook call that is not shown to be the provider's refused
    BadPayload                    a correctly signed webhook call that cannot be read   refused
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias

from channels.send_window import SendWindow


class Channel(StrEnum):
    """A way to reach a person."""

    PUSH = "push"
    EMAIL = "email"
    SMS = "sms"
    WHATSAPP = "whatsapp"


# -- what goes out -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """A text with gaps. `literals` are the fixed parts, one more than there are gaps; `gaps` are indexes of values."""

    literals: tuple[str, ...]
    gaps: tuple[int, ...]

    def fill(self, values: Sequence[str]) -> str:
        """Return the text with these values in its gaps."""
        pieces = [""] * (2 * len(self.gaps) + 1)
        pieces[::2] = self.literals
        pieces[1::2] = [values[gap] for gap in self.gaps]
        return "".join(pieces)


@dataclass(frozen=True, slots=True, eq=False)
class MailTemplate:
    """The fixed text of all mails with one compiled path. Compared by identity."""

    subject: TextTemplate
    html: TextTemplate
    text: TextTemplate


@dataclass(frozen=True, slots=True)
class Email:
    """A rendered e-mail. `headers` holds what a commercial mail needs, such as the two headers of RFC 8058."""

    sender_name: str
    sender_address: str
    subject: str
    html: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()
    reply_to: str = ""  # where replies go; "" means to the sender


@dataclass(frozen=True, slots=True)
class MergedEmail:
    """A rendered e-mail, kept as a template and values. An adapter that sends many mails of one template can use them as they
    are; all others call `assemble`.
    """

    sender_name: str
    sender_address: str
    template: MailTemplate
    values: tuple[str, ...]
    headers: tuple[tuple[str, str], ...] = ()
    reply_to: str = ""

    @property
    def subject(self) -> str:
        """The subject with its values."""
        return self.template.subject.fill(self.values)

    def assemble(self) -> Email:
        """Return the same mail as one text per part."""
        template, values = self.template, self.values
        return Email(
            self.sender_name,
            self.sender_address,
            self.subject,
            template.html.fill(values),
            template.text.fill(values),
            self.headers,
            self.reply_to,
        )


@dataclass(frozen=True, slots=True)
class Sms:
    """A rendered text message."""

    text: str


@dataclass(frozen=True, slots=True)
class WhatsApp:
    """An approved WhatsApp template and the values of its numbered variables ("1", "2", …).

    Or free `text` in place of both, which WhatsApp takes only in the 24 hours after a message of the person (service window).
    """

    content_sid: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How a notification behaves on its device. The app and its platform decide about options that are not set.

    Of several notifications with one `collapse_key`, a device that was offline gets the last one, and a device that shows an
    earlier one replaces it. FCM keeps messages of at most four keys per device.
    """

    collapse_key: str = ""
    ttl_seconds: int | None = None  # how long it may wait until the device is online
    priority: str = ""  # "high" wakes a sleeping device, "normal" does not
    sound: str = ""  # "default", or a sound file of the app
    badge: int | None = None  # the number on the app's icon; 0 removes it
    image: str = ""  # an https address
    icon: str = ""  # a drawable of the Android app's
    android_channel: str = ""  # the Android app's notification channel, which people can switch off separately


@dataclass(frozen=True, slots=True)
class Push:
    """A rendered notification for one device; `data` goes to the app, is not shown, and holds only ids and links."""

    title: str
    body: str
    link: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    options: PushOptions = field(default=PushOptions(), repr=False)


PlainContent: TypeAlias = Email | Sms | WhatsApp | Push
Content: TypeAlias = PlainContent | MergedEmail


def assemble(content: Content) -> PlainContent:
    """Return the content as a person sees it: a merged e-mail becomes an `Email`."""
    return content.assemble() if isinstance(content, MergedEmail) else content


@dataclass(frozen=True, slots=True)
class Outbound:
    """One content for one address.

    `id` is the message id. It says nothing about the person, is sent along where the provider allows it, and comes back in
    events. A push message to three devices is three outbounds with one id. `flow` is the campaign, or "" for a trigger: flows get
    equal shares of a provider's rate. `sender` replaces the account's own sender of an SMS or WhatsApp message; the sender of an
    e-mail is in its content.
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
    """The provider took the message. `name` is the provider's id for it."""

    name: str


class ChannelError(Exception):
    """Why a message was not taken, or not certainly. `code` is the provider's, or ours if it gave none.

    Adapters yield an error as a value and do not raise it. It never holds an address or a body. Providers repeat both in their
    error messages, so we keep only the code, with a `hint` in our own words.
    """

    def __init__(self, code: str, hint: str = "") -> None:
        super().__init__(f"{code}: {hint}" if hint else code)
        self.code = code
        self.hint = hint


class Rejected(ChannelError):
    """The provider will never take this message -> failed."""


class BadAddress(ChannelError):
    """This address will never work on this channel -> failed, and the address is suppressed."""


class NoAddress(BadAddress):
    """This is not an address -> as `BadAddress`, on every channel that takes addresses of its kind."""


class OptedOut(ChannelError):
    """The provider has an opt-out that we do not have -> failed, and the opt-out is recorded."""


class Throttled(ChannelError):
    """Too fast, nothing was taken -> waiting, no attempt spent. `retry_after_seconds` is None if the provider gives no time."""

    def __init__(self, code: str, hint: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(code, hint)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(ChannelError):
    """Nothing was sent: the connection failed, or the provider said so reliably -> waiting with backoff."""


class StaleClaim(Unavailable):
    """Nothing was sent: the deadline of the claim had passed before the hand-off -> waiting, no attempt spent."""

    def __init__(self) -> None:
        super().__init__("stale_claim", "the claim's deadline has passed")


class Uncertain(ChannelError):
    """The message may have been sent: the answer was lost, late or unreadable -> unresolved, never sent again by the program."""


class Misconfigured(ChannelError):
    """Our keys or settings are wrong -> the channel stops with an alert, its messages wait."""


Result: TypeAlias = Receipt | ChannelError


# -- provider events --------------------------------------------------------------------------------------------------------


class EventKind(StrEnum):
    """What a provider reports after hand-off. All providers' events are mapped to these kinds."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    READ = "read"
    BOUNCED = "bounced"  # the address does not work -> suppress
    FAILED = "failed"  # this message failed, not because of the address
    HALTED = "halted"  # this message failed because of our account or sender -> the channel stops
    COMPLAINED = "complained"
    OPTED_OUT = "opted_out"
    OPTED_IN = "opted_in"
    ENGAGED = "engaged"  # opened, clicked
    UNKNOWN = "unknown"  # recorded and shown to a person, without any action


@dataclass(frozen=True, slots=True)
class RetryHint:
    """The message reached nobody and may be sent again: after `wait_seconds`, doubled each time, at most `times_max` times."""

    wait_seconds: float
    times_max: int


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a provider reports about a message. `id` is unique per provider; a repeated report has the same id.

    `retry_hint` is set on a failure that reached nobody, so the message may be sent again. `soft_bounce_limit` is set on a soft
    bounce: so many in a row mean that the address does not work. `address` is the one that the report names, as the provider
    writes it: it finds the message of a report without `message_id`. `extra` holds fields that no rule uses, as text and without
    addresses: see `channels.event_fields`.
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
    address: str | None = field(default=None, repr=False)  # never logged
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """A provider's answer to a look-up about one message that it took: receipt, time, the text as the provider shows it, events."""

    receipt: str
    at: datetime
    text: str
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class InboundText:
    """An inbound message. `id` is the provider's; `opt_out` is how the provider reads it (STOP, START, HELP), if it says.

    `button` is the payload of the button that was pressed, where one was: its label, which is the text, may be in any words.
    """

    id: str
    channel: Channel
    address: str
    text: str
    opt_out: str | None = None
    button: str | None = None


class BadSignature(Exception):
    """A webhook call that is not shown to be the provider's. `reason` is a short code for our log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadPayload(Exception):
    """A webhook call with a valid signature and a body that cannot be read."""


# -- the provider -------------------------------------------------------------------------------------------------------


class Provider(Protocol):
    """The API behind one channel. Safe to use from one thread at a time; cheap to make, holds pooled connections.

    Several batches may be on their way at once: while the HTTP transport waits for one, `send` is called for the next (see
    `channels.overlap`). So what belongs to one batch is kept in the call, not in the provider.
    """

    name: str
    channel: Channel

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """Send a batch concurrently. Yield each outbound exactly once, in the order of the answers. Never raise for one of them.

        Before the first byte of a message is sent, `window.may_start_sending` is asked; if it returns False, the result is
        `StaleClaim`.
        """
        ...

    def check(self) -> ChannelError | None:
        """Check keys and settings with the provider, without sending. None if they work."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


class SupportsLookup(Protocol):
    """A provider that can be asked later what it took. Called through `channels.lookup`."""

    name: str

    def look_up(self, address: str, since: datetime) -> Sequence[ProviderRecord] | ChannelError:
        """Return all messages that the provider took for an address since a time, whoever sent them from this account.

        Returns an error if the answer is not complete; `Rejected` if it never will be.
        """
        ...
