"""Provider events, posted to the sender's webhooks and signed as the providers sign them.

Small tuples wait in two queues and become payloads only when posted: mail events in batches of at most 1,000 on one connection,
SMS and WhatsApp callbacks one by one on a few connections. A slow webhook gets larger batches, not more connections. Events beyond
the limit of a queue are dropped and counted.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

from channels.sandbox.keys import SendGridSigner
from channels.sandbox.posting import Poster

_T = TypeVar("_T")

PENDING_MAX = 500_000
BATCH_EVENTS_MAX = 1_000
DEFAULT_MAIL_EVENTS = ("processed", "delivered")


@dataclass(frozen=True, slots=True)
class EventSettings:
    """Where events go, and how irregular they are. An empty URL means that these events are not sent."""

    sendgrid_url: str = ""
    twilio_inbound_url: str = ""
    telnyx_inbound_url: str = ""
    twilio_statuses: bool = True  # send status callbacks (Telnyx's too) to the URL that each message names
    delay_seconds: float = 0.2
    out_of_order: bool = False
    duplicate_share: float = 0.0
    connections: int = 8
    retries: int = 3
    retry_seconds: float = 0.5


class MailEvents(NamedTuple):
    """The events of one mail; `kinds` None means the default two."""

    seq: int
    email: str
    receipt: str
    arguments: Mapping[str, str]
    categories: Sequence[str]
    kinds: Sequence[str] | None


class TextEvents(NamedTuple):
    """The status callbacks of one SMS or WhatsApp message, in order; `code` goes with the last one."""

    sid: str
    account: str
    to: str
    sender: str
    url: str
    token: str
    statuses: Sequence[str]
    code: int | None


class InboundReply(NamedTuple):
    """A person's reply: one inbound webhook call."""

    url: str
    token: str
    form: Mapping[str, str]


class WebhookCalls(NamedTuple):
    """Webhook calls with ready bodies, in order; `headers` signs a body at the time of posting."""

    url: str
    bodies: Sequence[bytes]
    headers: Callable[[bytes, float], Mapping[str, str]]
    inbound: bool = False  # an inbound message, which is posted even if status callbacks are off


class EventQueue:
    """The queues and the tasks that post from them. `settings` may be replaced at any time."""

    def __init__(self, signer: SendGridSigner, rng: random.Random, clock: Callable[[], float]) -> None:
        self.settings = EventSettings()
        self.counts: Counter[str] = Counter()
        self._signer, self._rng, self._clock = signer, rng, clock
        self._mail: deque[tuple[float, MailEvents]] = deque()
        self._texts: deque[tuple[float, TextEvents | InboundReply | WebhookCalls]] = deque()
        self._busy = 0
        self._mail_ready, self._text_ready = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def mail_wanted(self) -> bool:
        return bool(self.settings.sendgrid_url)

    @property
    def pending(self) -> int:
        """Number of messages whose events are not yet posted."""
        return len(self._mail) + len(self._texts) + self._busy

    def add_mail(self, events: MailEvents) -> None:
        if len(self._mail) >= PENDING_MAX:
            self.counts["dropped"] += 1
            return
        self._mail.append((self._clock() + self.settings.delay_seconds, events))
        self._mail_ready.set()

    def add_text(self, events: TextEvents | InboundReply | WebhookCalls) -> None:
        is_answer = isinstance(events, InboundReply) or (isinstance(events, WebhookCalls) and events.inbound)
        if not is_answer and not self.settings.twilio_statuses:
            return
        if len(self._texts) >= PENDING_MAX:
            self.counts["dropped"] += 1
            return
        self._texts.append((self._clock() + self.settings.delay_seconds, events))
        self._text_ready.set()

    def start(self) -> None:
        """Start posting; needs a running event loop."""
        self._tasks = [asyncio.create_task(self._post_mail())]
        self._tasks += [asyncio.create_task(self._post_texts()) for _ in range(self.settings.connections)]

    async def stop(self) -> None:
        """Stop posting; waiting events are dropped."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def _post_mail(self) -> None:
        poster = Poster()
        while True:
            first = await self._next(self._mail, self._mail_ready)
            batch, now = self._mail_payload(first), self._clock()
            while self._mail and self._mail[0][0] <= now and len(batch) < BATCH_EVENTS_MAX - 10:
                batch += self._mail_payload(self._mail.popleft()[1])
            if self.settings.out_of_order:
                self._rng.shuffle(batch)
            if batch:
                body = json.dumps(batch).encode()
                await self._deliver(poster, self.settings.sendgrid_url, body, self._mail_headers(body), len(batch))
            self._busy -= 1

    def _mail_payload(self, events: MailEvents) -> list[dict[str, Any]]:
        kinds = DEFAULT_MAIL_EVENTS if events.kinds is None else events.kinds
        payload = [mail_event(events, kind, int(self._clock())) for kind in kinds]
        return list(self._with_duplicates(payload))

    def _mail_headers(self, body: bytes) -> dict[str, str]:
        timestamp = str(int(self._clock()))
        return {
            "Content-Type": "application/json",
            "User-Agent": "SendGrid Event API",
            "X-Twilio-Email-Event-Webhook-Signature": self._signer.sign(timestamp, body),
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        }

    async def _post_texts(self) -> None:
        poster = Poster()
        while True:
            item = await self._next(self._texts, self._text_ready)
            for body, headers in self._calls(item):
                await self._deliver(poster, item.url, body, headers, 1)
            self._busy -= 1

    def _calls(self, item: TextEvents | InboundReply | WebhookCalls) -> Iterator[tuple[bytes, Mapping[str, str]]]:
        if isinstance(item, WebhookCalls):
            bodies = list(item.bodies)
            if self.settings.out_of_order:
                self._rng.shuffle(bodies)
            return ((body, item.headers(body, self._clock())) for body in self._with_duplicates(bodies))
        return ((urlencode(form).encode(), text_headers(item.url, form, item.token)) for form in self._forms(item))

    def _forms(self, item: TextEvents | InboundReply) -> Iterator[Mapping[str, str]]:
        if isinstance(item, InboundReply):
            return iter((item.form,))
        forms = [text_form(item, status, last=index == len(item.statuses) - 1) for index, status in enumerate(item.statuses)]
        if self.settings.out_of_order:
            self._rng.shuffle(forms)
        return self._with_duplicates(forms)

    def _with_duplicates(self, items: Sequence[_T]) -> Iterator[_T]:
        for item in items:
            yield item
            if self.settings.duplicate_share and self._rng.random() < self.settings.duplicate_share:
                yield item

    async def _next(self, queue: deque[tuple[float, _T]], ready: asyncio.Event) -> _T:
        """Wait for the oldest item until it is due, and return it."""
        while not queue:
            ready.clear()
            await ready.wait()
        due, item = queue.popleft()
        self._busy += 1
        if (early := due - self._clock()) > 0:
            await asyncio.sleep(early)
        return item

    async def _deliver(self, poster: Poster, url: str, body: bytes, headers: Mapping[str, str], events: int) -> None:
        """Post with some retries; an event that is not accepted is counted and dropped."""
        for attempt in range(self.settings.retries + 1):
            if 200 <= await poster.post(url, body, headers) < 300:
                self.counts["posted"] += events
                return
            if attempt < self.settings.retries:
                self.counts["retried"] += 1
                await asyncio.sleep(self.settings.retry_seconds * 2**attempt)
        self.counts["failed"] += events


_DETAILS: Mapping[str, Mapping[str, Any]] = {
    "delivered": {"event": "delivered", "response": "250 OK", "tls": 1},
    "deferred": {"event": "deferred", "response": "451 4.7.1 try again later", "attempt": "1"},
    "bounce": {"event": "bounce", "type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 no such user",
               "bounce_classification": "Invalid Address"},
    "blocked": {"event": "bounce", "type": "blocked", "status": "5.7.1", "reason": "550 5.7.1 refused by policy",
                "bounce_classification": "Reputation"},
    "dropped": {"event": "dropped", "reason": "Bounced Address", "status": "5.0.0"},
    "dropped_unsubscribed": {"event": "dropped", "reason": "Unsubscribed Address", "status": "5.0.0"},
    "dropped_spam": {"event": "dropped", "reason": "Spam Reporting Address", "status": "5.0.0"},
    "open": {"event": "open", "useragent": "Sandbox", "ip": "127.0.0.1", "sg_machine_open": False},
    "click": {"event": "click", "useragent": "Sandbox", "ip": "127.0.0.1", "url": "https://example.com/"},
}  # fmt: skip


def mail_event(events: MailEvents, kind: str, now: int) -> dict[str, Any]:
    """Return one event as SendGrid posts it. Its id depends only on message and kind, so a repeated event has the same id."""
    identity = f"{events.receipt}.{events.seq:x}.{kind}".encode()
    return {
        **events.arguments,
        "email": events.email,
        "timestamp": now,
        "smtp-id": f"<{events.receipt}@sandbox>",
        "event": kind,
        **_DETAILS.get(kind, {}),
        **({"category": list(events.categories)} if events.categories else {}),
        "sg_event_id": base64.urlsafe_b64encode(identity).decode().rstrip("="),
        "sg_message_id": f"{events.receipt}.sandbox-{events.seq}.0",
    }


def text_form(events: TextEvents, status: str, *, last: bool) -> dict[str, str]:
    """Return one status callback as Twilio posts it."""
    form = {
        "AccountSid": events.account,
        "ApiVersion": "2010-04-01",
        "From": events.sender,
        "MessageSid": events.sid,
        "MessageStatus": status,
        "SmsSid": events.sid,
        "SmsStatus": status,
        "To": events.to,
    }
    if events.sender.startswith("MG"):
        form |= {"MessagingServiceSid": form.pop("From")}
    if events.code is not None and last:
        form["ErrorCode"] = str(events.code)
    if events.to.startswith("whatsapp:"):
        form |= {"ChannelPrefix": "whatsapp", "ChannelToAddress": events.to}
        if status == "read":
            form["EventType"] = "READ"
    return form


def text_headers(url: str, form: Mapping[str, str], token: str) -> dict[str, str]:
    """Return headers with Twilio's signature: base64 of HMAC-SHA1 with the auth token over the URL and the sorted fields."""
    signed = url.partition("#")[0] + "".join(name + form[name] for name in sorted(form))
    signature = base64.b64encode(hmac.digest(token.encode(), signed.encode(), "sha1")).decode()
    return {
        "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        "User-Agent": "TwilioProxy/1.1",
        "X-Twilio-Signature": signature,
    }
