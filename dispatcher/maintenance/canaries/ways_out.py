"""The ways out, as a customer, another system, a provider or an employee uses them; and the way back in.

All but the branch go through the real web application, at DISPATCHER_CANARY_WEB_URL or else DISPATCHER_PUBLIC_URL.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from channels.base import Channel
from channels.sandbox import signed_calls
from channels.sandbox.client import SandboxClient
from channels.sandbox.signed_calls import REPLIES_BY, MailEvent, SignedCall
from dispatcher.consent import preferences
from dispatcher.consent.acknowledgement import Publish
from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, message_token
from dispatcher.consent.preferences import PreferenceChange
from dispatcher.domain.canaries import OptOutWay
from dispatcher.domain.message import Mode
from dispatcher.domain.preferences import SWITCHES, Change
from dispatcher.domain.recipient import Source
from dispatcher.maintenance.canaries.errors import CannotMeasure
from dispatcher.maintenance.canaries.recipients import addresses_of, choices_on
from dispatcher.maintenance.canaries.web_client import call
from dispatcher.runtime.services import Services

ACTOR = "canary"
_NEEDED: Mapping[OptOutWay, Channel] = {
    OptOutWay.ONE_CLICK: Channel.EMAIL,
    OptOutWay.PREFERENCE_CENTRE: Channel.EMAIL,
    OptOutWay.STOP_REPLY: Channel.SMS,
    OptOutWay.PROVIDER_EVENT: Channel.EMAIL,
}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
_SEALED_PAGE = re.compile(r'name="page" value="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Visit:
    """What a way out needs: the canary, the id of a message that it got by e-mail, if any, and a number of its own."""

    services: Services
    publish: Publish
    recipient_id: str
    message_id: str
    number: str


def usable(services: Services) -> list[OptOutWay]:
    """The ways that can be measured with this configuration."""
    settings = services.canaries
    if settings is None:
        return []
    usable_if = {
        OptOutWay.API: bool(settings.api_key),
        OptOutWay.STOP_REPLY: bool(services.webhook_keys.get(REPLIES_BY)),
        OptOutWay.PROVIDER_EVENT: Channel.EMAIL in settings.sandbox_channels,  # only the provider can sign a real one
    }
    return [way for way in OptOutWay if usable_if.get(way, True) and _has_addresses(services, way)]


def _has_addresses(services: Services, way: OptOutWay) -> bool:
    """Whether the canary has an address, and the one that its way out needs: links come by e-mail, STOP from a number."""
    present = addresses_of(services, way)
    return _NEEDED[way] in present if way in _NEEDED else bool(present)


def opt_out(way: OptOutWay, visit: Visit) -> None:
    """Opt out; returns when the way out has answered that it is done. Raises `CannotMeasure`."""
    _WAYS[way](visit)


def switch_on(way: OptOutWay, visit: Visit) -> None:
    """Switch everything on again, as the canary's statement in a branch. Raises `CannotMeasure`.

    A STOP and a provider's report have suppressed the address too: START, or the provider's report, lifts that.
    """
    if way is OptOutWay.STOP_REPLY:
        _reply(visit, "START")
    if way is OptOutWay.PROVIDER_EVENT:
        _report(visit, "group_resubscribe", later_seconds=1)  # whole seconds: not before the suppression that it lifts
    _record(visit, *choices_on(visit.services))


def _one_click(visit: Visit) -> None:
    """RFC 8058: what a mail program sends."""
    token = message_token(visit.services.secret, UNSUBSCRIBE, visit.message_id)
    call("POST", f"{_web_url(visit.services)}/u/{token}", b"List-Unsubscribe=One-Click", FORM)


def _preference_centre(visit: Visit) -> None:
    """Open the page, choose no offers of the jobs' type, save."""
    token = message_token(visit.services.secret, PREFERENCES, visit.message_id)
    url = f"{_web_url(visit.services)}/p/{token}"
    sealed = _SEALED_PAGE.search(call("GET", url))
    if sealed is None:
        raise CannotMeasure("web_answers_another_page")
    present = preferences.show(visit.services, visit.recipient_id).choices
    offer = next(change.subject for change in choices_on(visit.services))
    switches = {subject: "on" for subject in SWITCHES if subject in present and present[subject].value == "on"}
    fields = {"page": html.unescape(sealed[1]), offer: Mode.NONE.value, **switches}
    call("POST", url, urlencode(fields).encode(), FORM)


def _api(visit: Visit) -> None:
    settings = visit.services.canaries
    body = {"object_marketing": True, "source": Source.MOBILE, "actor": ACTOR}
    url = f"{_web_url(visit.services)}/v1/recipients/{quote(visit.recipient_id)}/preferences"
    call("PUT", url, json.dumps(body).encode(), {**JSON, "Authorization": f"Bearer {settings.api_key if settings else ''}"})


def _stop_reply(visit: Visit) -> None:
    _reply(visit, "STOP")


def _reply(visit: Visit, text: str) -> None:
    """A reply by SMS, signed as the provider signs it."""
    services = visit.services
    number, token = addresses_of(services, OptOutWay.STOP_REPLY).get(Channel.SMS, ""), services.webhook_keys[REPLIES_BY]
    _send(services, signed_calls.reply(services.public_url, number, text, f"SM{visit.number}{text}", token))


def _provider_event(visit: Visit) -> None:
    _report(visit, "group_unsubscribe")


def _report(visit: Visit, name: str, later_seconds: int = 0) -> None:
    """An event of the provider, signed by the sandbox. The answer means that it is stored: the inbound lane applies it."""
    services, settings = visit.services, visit.services.canaries
    now, address = int(services.clock().timestamp()), addresses_of(services, OptOutWay.PROVIDER_EVENT)[Channel.EMAIL]
    event = MailEvent(name, f"canary-{visit.number}-{name}", address, now + later_seconds, visit.message_id)
    try:
        signed = signed_calls.mail_event(services.public_url, event, now, SandboxClient(settings.sandbox_url if settings else ""))
    except (OSError, ValueError):
        raise CannotMeasure("sandbox_unreachable") from None
    _send(services, signed)


def _send(services: Services, signed: SignedCall) -> None:
    """Send a call to the web application. Twilio signs the address that it calls, so the signature is of the public one."""
    call("POST", _web_url(services) + signed.url.removeprefix(services.public_url), signed.body, signed.headers)


def _web_url(services: Services) -> str:
    """Where the web application is, as seen from here."""
    return (services.canaries.web_url if services.canaries else "") or services.public_url


def _branch(visit: Visit) -> None:
    """What the desk records."""
    _record(visit, Change("objection:marketing", "on"))


def _record(visit: Visit, *changes: Change) -> None:
    version = visit.services.policy.contract.version
    change = PreferenceChange(visit.recipient_id, changes, Source.BRANCH, ACTOR, ACTOR, contract_version=version)
    preferences.record(visit.services, visit.publish, change)


_WAYS: Mapping[OptOutWay, Callable[[Visit], None]] = {
    OptOutWay.ONE_CLICK: _one_click,
    OptOutWay.PREFERENCE_CENTRE: _preference_centre,
    OptOutWay.API: _api,
    OptOutWay.STOP_REPLY: _stop_reply,
    OptOutWay.PROVIDER_EVENT: _provider_event,
    OptOutWay.BRANCH: _branch,
}
