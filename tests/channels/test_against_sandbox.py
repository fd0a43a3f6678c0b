"""The adapters against the sandbox: the providers' checks, errors, faults and webhooks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from channels.base import (
    BadAddress,
    Channel,
    ChannelError,
    Event,
    EventKind,
    InboundText,
    Misconfigured,
    NoAddress,
    OptedOut,
    Outbound,
    Provider,
    Receipt,
    Rejected,
    Throttled,
    Unavailable,
    Uncertain,
)
from channels.http import HttpTransport
from channels.providers import sendgrid, twilio
from channels.providers import telnyx as telnyx_module
from channels.providers.fcm import Fcm
from channels.providers.sendgrid import SendGrid
from channels.providers.telnyx import Telnyx, TelnyxAccount
from channels.providers.twilio import TwilioSms, TwilioWhatsApp
from channels.sandbox import SandboxClient, running, write_service_account
from channels.send_window import window_of
from tests.support.http_servers import ReceivedRequest, ServerLog, http_answer, http_server
from tests.support.provider_cases import EMAIL, PUSH, SENDER, SMS, WHATSAPP, mailbox, phone, token, twilio_account

CONTENTS: Mapping[Channel, Any] = {
    Channel.EMAIL: EMAIL,
    Channel.SMS: SMS,
    Channel.WHATSAPP: WHATSAPP,
    Channel.PUSH: PUSH,
}
ADDRESSES: Mapping[Channel, Callable[[int], str]] = {
    Channel.EMAIL: mailbox,
    Channel.SMS: phone,
    Channel.WHATSAPP: phone,
    Channel.PUSH: token,
}


@pytest.fixture
def sandbox() -> Iterator[SandboxClient]:
    with running() as started:
        yield started


@pytest.fixture(params=[*Channel, "telnyx"])
def provider(request: pytest.FixtureRequest, sandbox: SandboxClient, tmp_path: Path) -> Iterator[Provider]:
    http = HttpTransport(timeout_seconds=5)
    makers: Mapping[str, Callable[[], Provider]] = {
        Channel.EMAIL: lambda: SendGrid("SG.key", http, sandbox.url, mails_per_request=1),
        Channel.SMS: lambda: TwilioSms(twilio_account(sandbox.url), http, f"{sandbox.url}/hook"),
        Channel.WHATSAPP: lambda: TwilioWhatsApp(twilio_account(sandbox.url), http, f"{sandbox.url}/hook"),
        "telnyx": lambda: Telnyx(TelnyxAccount("KEY0", SENDER, sandbox.url), http, f"{sandbox.url}/hook"),
        Channel.PUSH: lambda: Fcm(str(write_service_account(tmp_path / "key.json", sandbox.url)), http, sandbox.url),
    }
    made = makers[request.param]()
    yield made
    made.close()


def outbound(channel: Channel, number: int, address: str | None = None) -> Outbound:
    return Outbound(f"m-{number}", channel, address or ADDRESSES[channel](number), CONTENTS[channel], 3600)


def test_each_message_arrives_once_with_its_receipt(sandbox: SandboxClient, provider: Provider) -> None:
    batch = [outbound(provider.channel, number) for number in range(200)]
    found = {sent.id: result for sent, result in provider.send(batch, window_of(30))}
    arrived = {row["message_id"]: row for row in sandbox.log()}
    assert len(found) == len(arrived) == 200
    for sent in batch:
        assert found[sent.id] == Receipt(arrived[sent.id]["receipt"])
        assert arrived[sent.id]["address"] == sent.address
        assert arrived[sent.id]["channel"] == provider.channel


def test_a_check_sends_no_message(sandbox: SandboxClient, provider: Provider) -> None:
    assert provider.check() is None
    assert list(sandbox.log()) == []


def test_a_check_reports_refused_keys(sandbox: SandboxClient, provider: Provider) -> None:
    sandbox.refuse_keys(["SG.key", "token", "KEY0", "sandbox@sandbox.iam.gserviceaccount.com"])
    assert isinstance(provider.check(), Misconfigured)
    found = [result for _, result in provider.send([outbound(provider.channel, 1)], window_of(30))]
    assert [type(result) for result in found] == [Misconfigured]


def test_faults_cause_no_duplicate_and_no_loss(sandbox: SandboxClient, provider: Provider) -> None:
    sandbox.set_faults(
        [
            {"share": 0.1},
            {"share": 0.1, "taken": True},
            {"share": 0.1, "cut": 40, "taken": True},
            {"share": 0.1, "status": 429},
            {"share": 0.1, "status": 500, "taken": True},
            {"share": 0.1, "status": 503},
            {"share": 0.1, "status": 400},
        ]
    )
    batch = [outbound(provider.channel, number) for number in range(300)]
    pairs = [pair for _ in range(3) for pair in provider.send(batch[:100], window_of(30))] + list(
        provider.send(batch[100:], window_of(30))
    )
    sandbox.clear_faults()
    assert Counter(sent.id for sent, _ in pairs) == Counter(
        [f"m-{n}" for n in range(100)] * 3 + [f"m-{n}" for n in range(100, 300)]
    )
    arrivals = Counter(row["message_id"] for row in sandbox.log())
    sure = Counter(sent.id for sent, result in pairs if isinstance(result, Receipt))
    unsure = Counter(sent.id for sent, result in pairs if isinstance(result, Uncertain))
    for sent in batch:
        assert sure[sent.id] <= arrivals[sent.id] <= sure[sent.id] + unsure[sent.id] + fcm_internal(pairs, sent)
    assert {type(result) for _, result in pairs} >= {Receipt, Uncertain, Throttled, Rejected}


def fcm_internal(pairs: list[tuple[Outbound, Any]], sent: Outbound) -> int:
    """FCM's "try again" (INTERNAL) can follow a push message that was sent: the second one replaces it on the device."""
    return sum(1 for other, result in pairs if other is sent and isinstance(result, Unavailable) and result.code == "INTERNAL")


EXPECTED_ERRORS: list[tuple[str, str, type[ChannelError]]] = [
    (Channel.EMAIL, "badkey@home.example", Misconfigured),
    (Channel.EMAIL, "credits@home.example", Misconfigured),
    (Channel.EMAIL, "forbidden@home.example", Misconfigured),
    (Channel.EMAIL, "toolarge@home.example", Rejected),
    (Channel.EMAIL, "throttled@home.example", Throttled),
    (Channel.EMAIL, "broken@home.example", Uncertain),
    (Channel.EMAIL, "lost@home.example", Uncertain),
    (Channel.SMS, "+32460920003", Misconfigured),
    (Channel.SMS, "+32460920429", Throttled),
    (Channel.SMS, "+32460921211", NoAddress),
    (Channel.SMS, "+32460921408", Rejected),
    (Channel.SMS, "+32460921610", OptedOut),
    (Channel.SMS, "+32460921611", Throttled),
    (Channel.SMS, "+32460921614", BadAddress),
    (Channel.SMS, "+32460921999", Rejected),
    (Channel.SMS, "+32460900002", Uncertain),
    ("telnyx", "+32460910009", Misconfigured),
    ("telnyx", "+32460910011", Throttled),
    ("telnyx", "+32460940300", OptedOut),
    ("telnyx", "+32460940310", NoAddress),
    ("telnyx", "+32460940318", Throttled),
    ("telnyx", "+32460940322", Rejected),
    ("telnyx", "+32460900002", Uncertain),
    (Channel.WHATSAPP, "+32460963007", Misconfigured),
    (Channel.PUSH, "unregistered-1", BadAddress),
    (Channel.PUSH, "invalid-1", BadAddress),
    (Channel.PUSH, "badfield-1", Rejected),
    (Channel.PUSH, "mismatch-1", BadAddress),
    (Channel.PUSH, "quota-1", Throttled),
    (Channel.PUSH, "unavailable-1", Unavailable),
    (Channel.PUSH, "internal-1", Unavailable),
    (Channel.PUSH, "thirdparty-1", Misconfigured),
    (Channel.PUSH, "unauthenticated-1", Misconfigured),
    (Channel.PUSH, "denied-1", Misconfigured),
    (Channel.PUSH, "lost-1", Uncertain),
]


def test_each_refusal_has_its_error(provider: Provider) -> None:
    whose = "telnyx" if provider.name == "telnyx" else provider.channel
    mine = [(address, error) for who, address, error in EXPECTED_ERRORS if who == whose]
    batch = [outbound(provider.channel, number, address) for number, (address, _) in enumerate(mine)]
    found = {sent.address: result for sent, result in provider.send(batch, window_of(30))}
    assert {address: type(result) for address, result in found.items()} == dict(mine)
    waits = [result.retry_after_seconds for result in found.values() if isinstance(result, Throttled)]
    assert all(wait is not None and wait >= 0 for wait in waits)


# -- webhooks ----------------------------------------------------------------------------------------------------------


class Hook:
    """Collects what our parsers return for the sandbox's calls."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.inbound: list[InboundText] = []
        self.public_key = self.short_key = ""
        self.lock = threading.Lock()

    def __call__(self, call: ReceivedRequest, _: int, server: Callable[[], ServerLog]) -> Any:
        now, url = datetime.now(UTC), f"http://127.0.0.1:{server().port}{call.path}"
        signature = call.headers.get("x-twilio-signature", "")
        with self.lock:
            if call.path == "/sendgrid":
                prefix = "x-twilio-email-event-webhook-"
                stamp, sign = call.headers[prefix + "timestamp"], call.headers[prefix + "signature"]
                self.events += sendgrid.parse_events(call.body, sign, stamp, self.public_key, now)
            elif call.path.startswith("/telnyx"):
                sign, stamp = call.headers["telnyx-signature-ed25519"], call.headers["telnyx-timestamp"]
                for item in telnyx_module.parse_webhook(call.body, sign, stamp, self.short_key, now):
                    (self.events if isinstance(item, Event) else self.inbound).append(item)  # type: ignore[arg-type]
            elif call.path.startswith("/status"):
                self.events += twilio.parse_events(url, call.body, signature, "token", now)
            else:
                self.inbound.append(twilio.parse_inbound(url, call.body, signature, "token"))
        return http_answer(204)


def test_events_of_the_sandbox_are_parsed(sandbox: SandboxClient) -> None:
    hook, http = Hook(), HttpTransport(timeout_seconds=5)
    hook.public_key, hook.short_key = sandbox.sendgrid_webhook_public_key, sandbox.telnyx_webhook_public_key
    servers: list[ServerLog] = []
    with http_server(partial(hook, server=lambda: servers[0])) as server:
        servers.append(server)
        here = f"http://127.0.0.1:{server.port}"
        sandbox.set_events(
            sendgrid_url=f"{here}/sendgrid",
            twilio_inbound_url=f"{here}/inbound",
            telnyx_inbound_url=f"{here}/telnyx",
            twilio_statuses=True,
            delay_seconds=0.0,
        )
        sandbox.set_content(WHATSAPP.content_sid, "{{1}}")
        email = SendGrid("SG.key", http, sandbox.url, mails_per_request=1)
        sms = TwilioSms(twilio_account(sandbox.url), http, f"{here}/status")
        whatsapp = TwilioWhatsApp(twilio_account(sandbox.url), http, f"{here}/status")
        sent = [*email.send([named(Channel.EMAIL, n, f"{n}@home.example") for n in MAIL_NEWS], window_of(30))]
        sent += [*sms.send([named(Channel.SMS, n, f"+324609{n}") for n in TEXT_NEWS], window_of(30))]
        sent += [*whatsapp.send([named(Channel.WHATSAPP, "read", phone(1))], window_of(30))]
        telnyx = Telnyx(TelnyxAccount("KEY0", SENDER, sandbox.url), http, f"{here}/telnyx")
        sent += [*telnyx.send([named(Channel.SMS, f"telnyx {n}", f"+324609{n}") for n in (*OTHER_NEWS, SILENT)], window_of(30))]
        sandbox.reply(phone(1), SENDER, "STOP svp", channel="whatsapp")
        sandbox.reply(phone(2), SENDER, "START", provider="telnyx", opt_out_type="START")
        sandbox.wait_for_events()
        http.close()
    receipts = {outbound.id: result.name for outbound, result in sent if isinstance(result, Receipt)}
    kinds_by_id: dict[str, set[EventKind]] = {}
    for event in hook.events:
        assert event.message_id is not None
        assert event.receipt == receipts[event.message_id]
        kinds_by_id.setdefault(event.message_id, set()).add(event.kind)
    assert {name: kinds - {EventKind.ACCEPTED} for name, kinds in kinds_by_id.items()} == {
        **MAIL_NEWS,
        **TEXT_NEWS,
        **READ,
        **{f"telnyx {n}": kinds for n, kinds in OTHER_NEWS.items()},
    }
    assert len({event.id for event in hook.events}) == len(hook.events)
    assert {(call.channel, call.address, call.text, call.opt_out) for call in hook.inbound} == {
        (Channel.WHATSAPP, phone(1), "STOP svp", None),
        (Channel.SMS, phone(2), "START", "START"),
    }


MAIL_NEWS = {
    "usual": {EventKind.DELIVERED},
    "bounce": {EventKind.BOUNCED},
    "blocked": {EventKind.FAILED},
    "dropped": {EventKind.BOUNCED},
    "unsubscribed": {EventKind.FAILED, EventKind.OPTED_OUT},
    "spamreported": {EventKind.COMPLAINED},
    "deferred": {EventKind.DEFERRED, EventKind.DELIVERED},
    "spam": {EventKind.DELIVERED, EventKind.COMPLAINED},
    "unsubscribe": {EventKind.DELIVERED, EventKind.OPTED_OUT},
    "click": {EventKind.DELIVERED, EventKind.ENGAGED},
}
TEXT_NEWS = {
    "30005": {EventKind.BOUNCED},
    "30006": {EventKind.BOUNCED},
    "30007": {EventKind.FAILED},
    "30003": {EventKind.FAILED},
    "99999": {EventKind.FAILED},
}
SILENT = "00000"  # no events follow
OTHER_NEWS = {
    "00001": {EventKind.DELIVERED},
    "40001": {EventKind.BOUNCED},
    "40008": {EventKind.FAILED},
    "40013": {EventKind.HALTED},
}
READ = {"read": {EventKind.DELIVERED, EventKind.READ}}


def named(channel: Channel, name: str, address: str) -> Outbound:
    return replace(outbound(channel, 0, address), id=name)
