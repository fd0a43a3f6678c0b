"""Test sends: a template with its examples to a named tester, through the real provider. Any version may be sent, also a draft.

They are marked as tests. They go to addresses in the policy only, and never to one that a recipient has, unless the tester is that
recipient. Caps, campaigns and metrics do not count them. The ledger keeps who sent which version to whom, when, and with what
result, and no content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, NoReturn

from channels.base import Channel, Content, Email, Event, EventKind, Outbound, Push, Receipt, Sms, Uncertain, WhatsApp, assemble
from channels.send_window import SendWindow
from dispatcher.campaigns.template_approval import draft_error
from dispatcher.content import ContentRefusal, MessageLinks, Template, example_request
from dispatcher.delivery.whatsapp_texts import content_sids
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import Language
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.campaigns import tester_sends, whatsapp_templates
from dispatcher.ledger.campaigns.tester_sends import NewTesterSend, SeededCampaign, TesterSend, TesterSendResult
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import address_keys, recipients, suppressions
from dispatcher.ledger.maintenance import policies
from dispatcher.policy.data import Tester
from dispatcher.runtime.entity_senders import entity_sender
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_versions import TemplateUnavailable

__all__ = ["TestRequest", "TesterSend", "newest", "record_reports", "send_due_seeds", "send_test", "tester_of"]

MARK = "[TEST]"
_ID = "test-"  # before its number: no message id begins so
_SEEDS_BY = "seeds of the campaign"
# What a provider reports of a test send only. All else, such as a bounce or an opt-out, counts for the address as always.
_ADDRESS_LINES: Mapping[Channel, str] = {
    Channel.EMAIL: 'email = "name@bank.example"',
    Channel.SMS: 'sms = "+32…"',
    Channel.WHATSAPP: 'whatsapp = "+32…"',
    Channel.PUSH: 'push = "the token of a device"',
}
_POLICY_FILE = (
    "the policy file that DISPATCHER_POLICY names, then `dispatcher policy adopt`. "
    "Without DISPATCHER_POLICY the shipped policy is used: begin with `dispatcher policy show --text > policy.toml`"
)
_OWN_REPORTS = frozenset({
    *(EventKind.ACCEPTED, EventKind.DEFERRED, EventKind.DELIVERED, EventKind.READ, EventKind.ENGAGED, EventKind.FAILED)
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class TestRequest:
    """What to send to a tester. `data` replaces examples; `entity` "" means that of the template."""

    __test__ = False  # pytest: no test class

    template: Template
    channel: Channel
    language: Language
    mode: Mode
    actor: str
    data: Mapping[str, Any] = field(default_factory=dict)
    entity: str = ""
    campaign_no: int | None = None


def tester_of(services: Services, name: str) -> Tester:
    """The tester of this name. Raises `BadInput`."""
    testers = services.policy.testers
    if name not in testers:
        _refuse("tester", f"there is no tester {name!r} in [testers] of the policy{did_you_mean(name, testers)}")
    return testers[name]


def send_test(services: Services, tester: Tester, request: TestRequest) -> TesterSend | None:
    """Send one message to a tester; None for a seed that was sent before.

    Raises `BadInput` and `PolicyNotInForce`, and then sends nothing: anybody can write an address into a policy file of their own.
    """
    address = tester.addresses.get(request.channel)
    if not request.actor.strip():
        _refuse("actor", "missing: name who sends the test")
    if address is None:
        line, has = _ADDRESS_LINES[request.channel], f"{tester.name} has no address for {request.channel}"
        _refuse("channel", f"{has}: add {line} to [testers.{tester.name}] of {_POLICY_FILE}")
    content = _content(services, request)
    with lend(services.pool) as connection, connection.transaction():
        policies.require_in_force(connection, services.policy.digest)
        _check_address(services, connection, tester, request.channel, address)
        new = NewTesterSend(
            request.template.name,
            request.template.digest,
            tester.name,
            request.channel,
            request.language,
            request.mode,
            request.actor.strip(),
            request.campaign_no,
            services.clock(),
        )
        no = tester_sends.add(connection, new)
    if no is None:
        return None
    result = _hand_off(services, Outbound(f"{_ID}{no}", request.channel, address, content, sender=_sender(services, request)))
    with lend(services.pool) as connection:
        return tester_sends.settle(connection, no, result, services.clock())


def newest(services: Services, template: str | None = None, limit: int = 20) -> list[TesterSend]:
    """The newest test sends, newest first, of one template or of all."""
    with lend(services.pool) as connection:
        return tester_sends.newest(connection, template, limit)


def send_due_seeds(services: Services) -> int:
    """Send the seeds of campaigns that wait for their release, once each; returns their number.

    Sends none under a policy that is not in force: the periodic sweep runs under any, and another process has the testers.
    """
    with lend(services.pool) as connection:
        if not policies.is_in_force(connection, services.policy.digest):
            return 0
        campaigns = tester_sends.without_seeds(connection)
    return sum(_send_seeds(services, campaign) for campaign in campaigns)


def _send_seeds(services: Services, campaign: SeededCampaign) -> int:
    """Send a campaign's templates to its testers, on each channel and in each mode. What cannot be sent is left out."""
    try:
        versions = services.versions.load(services.pool, services.policy, services.catalog, campaign.template_digests)
    except TemplateUnavailable:
        return 0
    testers = [services.policy.testers[name] for name in campaign.spec.seeds if name in services.policy.testers]
    templates = [versions[digest] for digest in campaign.template_digests.values()]
    count = 0
    for tester, template, channel in product(testers, templates, campaign.spec.channels):
        for mode in sorted(template.info.modes):
            entity, language = campaign.spec.entity, tester.language
            request = TestRequest(template, channel, language, mode, _SEEDS_BY, entity=entity, campaign_no=campaign.no)
            count += _sent(services, tester, request)
    return count


def _sent(services: Services, tester: Tester, request: TestRequest) -> bool:
    try:
        return send_test(services, tester, request) is not None
    except BadInput:  # it has no address for the channel, or a customer's: the release shows what was sent
        return False


def record_reports(services: Services, events: Iterable[Event]) -> list[Event]:
    """Record what providers report of test sends. Returns the events that concern others, or an address."""
    others, reports = [], []
    for event in events:
        number = (event.message_id or "").removeprefix(_ID)
        is_test = (event.message_id or "").startswith(_ID) and number.isascii() and number.isdigit() and len(number) < 19
        if is_test and event.kind not in (EventKind.ACCEPTED, EventKind.DEFERRED):
            reports.append((int(number), event.kind.value, event.code))
        if not is_test or event.kind not in _OWN_REPORTS:
            others.append(event)
    if reports:
        with lend(services.pool) as connection:
            tester_sends.record_reports(connection, reports, services.clock())
    return others


def _check_address(services: Services, connection: Connection, tester: Tester, channel: Channel, address: str) -> None:
    """Refuse an address that a recipient other than the tester has, and one that is banned."""
    if channel is Channel.PUSH:
        owners = recipients.with_device(connection, address)
    else:
        named = (channel, address)
        key = address_keys.in_use(connection, services.secret, [named])[named]
        owners = recipients.with_address(connection, channel, key)
        if suppressions.in_force(connection, channel, key):
            _refuse("tester", f"the address of {tester.name} for {channel} is suppressed")
    if set(owners) - {tester.recipient}:
        _refuse("tester", f"a recipient has the address of {tester.name} for {channel}: a test is never sent to a customer")


def _content(services: Services, request: TestRequest) -> Content:
    """The marked message. Raises `BadInput` for one that cannot be rendered or marked."""
    template, name = request.template, request.entity or request.template.entity
    entity = services.policy.entities.get(name)
    if request.channel not in template.channels or request.mode not in template.info.modes:
        _refuse("channel", f"{template.name} is not written for {request.channel}, {request.mode}")
    if entity is None:
        _refuse("template", f"the policy has no entity {name!r}")
    sender = entity_sender(entity, name, request.language, services.public_url)
    links = MessageLinks(*(f"{services.public_url}/{page}/{'test'.ljust(43, '0')}" for page in "up"))  # belong to nobody
    example = example_request(template, request.channel, request.language, request.mode, request.data)
    try:
        content = template.render(replace(example, sender=sender, links=links))
    except ContentRefusal as refusal:
        _refuse("template", f"{template.name} can't be rendered: {refusal.code}: {refusal.variable}")
    if isinstance(content, WhatsApp):
        content = _with_content_sid(services, request, content)
    return _marked(content)


def _with_content_sid(services: Services, request: TestRequest, content: WhatsApp) -> WhatsApp:
    """The message with the id of its text in the account. Raises `BadInput` for a text that WhatsApp has not approved."""
    template = request.template
    with lend(services.pool) as connection:
        approved = whatsapp_templates.approved(connection, [template.name])
    sids = content_sids(template, approved, services.whatsapp_account)
    place = (request.language, template.render_mode(request.mode))
    if place not in sids:
        if error := draft_error(template):
            raise BadInput(error)
        _refuse("template", f"WhatsApp has not approved this text of {template.name}: `dispatcher templates whatsapp push`")
    return WhatsApp(sids[place], content.variables)


def _marked(content: Content) -> Content:
    """The content with the mark where readers see it first."""
    plain = assemble(content)
    match plain:
        case Email():
            return replace(plain, subject=f"{MARK} {plain.subject}", text=f"{MARK}\n\n{plain.text}")
        case Push():
            return replace(plain, title=f"{MARK} {plain.title}")
        case Sms():
            return replace(plain, text=f"{MARK} {plain.text}")
        case WhatsApp():  # its text is approved word by word: only a value can have the mark
            place = next((key for key, value in plain.variables.items() if "://" not in value), None)
            if place is None:
                _refuse("channel", "this WhatsApp text has no value that could have the mark of a test")
            return replace(plain, variables={**plain.variables, place: f"{MARK} {plain.variables[place]}"})


def _sender(services: Services, request: TestRequest) -> str:
    entity = services.policy.entities[request.entity or request.template.entity]
    return entity.senders.get(request.channel, "")


def _hand_off(services: Services, outbound: Outbound) -> TesterSendResult:
    """Give one message to its provider. An error of the program counts as uncertain: the message may have been sent."""
    provider = services.providers[outbound.channel]
    window = SendWindow(services.monotonic_clock() + services.limits.send_deadline_seconds, services.monotonic_clock)
    try:
        [(_, result)] = provider.send([outbound], window)
    except Exception as error:  # an adapter raises none; the record must not stay open in any case
        result = Uncertain(type(error).__name__)
    if isinstance(result, Receipt):
        return TesterSendResult("accepted", provider=provider.name, receipt=result.name)
    return TesterSendResult("uncertain" if isinstance(result, Uncertain) else "failed", result.code, provider.name)


def _refuse(where: str, message: str) -> NoReturn:
    raise BadInput(InputError("test", 0, where, message))
