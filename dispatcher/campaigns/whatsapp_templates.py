"""WhatsApp templates at the provider: push texts for approval, fetch what WhatsApp decided, and show it.

The ContentSids are in the ledger, by account: the sources of a template know none. Only an approved text is sent; the rule
`whatsapp_approval` refuses any other, also one whose status is not known.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from channels.alerts import alert
from channels.base import Channel, ChannelError, WhatsApp
from channels.whatsapp_templates import Category, NewContent, ProviderTemplate, TemplateClient, TemplateStatus
from dispatcher.campaigns.template_approval import blocking_findings, draft_error, known_template
from dispatcher.content import Senders, Template, TemplateError, example_request, is_draft
from dispatcher.content.template import WhatsAppTemplate
from dispatcher.delivery.whatsapp_texts import text_key, texts_of
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import Kind, Mode
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.campaigns import whatsapp_templates
from dispatcher.ledger.campaigns.whatsapp_templates import TextKey, WhatsAppText
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.maintenance import policies
from dispatcher.runtime.entity_senders import senders_of
from dispatcher.runtime.services import Services

UNDECIDED_SECONDS = 60.0  # how long after a check a text is checked again on which WhatsApp decides; mostly it takes minutes
PUSH_TRIES = 120
PUSH_LEASE = timedelta(seconds=60)  # renewed after each text
DECIDED_SECONDS = 900.0  # the same for any other text: WhatsApp may pause one that was approved
NOT_PUSHED = "not pushed"  # the status of a text that this account has not
DIGEST_IN_NAME = 12
_CATEGORIES = {Kind.COMMERCIAL: Category.MARKETING, Kind.SERVICE: Category.UTILITY}  # never any other: no relabelling
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9_]")
_ALERTED = frozenset(
    {
        TemplateStatus.REJECTED,
        TemplateStatus.PAUSED,
        TemplateStatus.DISABLED,
        TemplateStatus.RECATEGORISED,
        TemplateStatus.MISSING,
        TemplateStatus.UNKNOWN,
    }
)


class TemplateApiError(Exception):
    """The provider refused or did not answer. The message is one sentence for a person."""


class PushRunning(TemplateApiError):
    """Another process pushes texts to the account."""


@dataclass(frozen=True, slots=True)
class LocalText:
    """A WhatsApp text of the template folder, as it is looked for in an account."""

    template: Template
    language: str
    mode: Mode
    text: WhatsAppTemplate
    key: TextKey
    senders: Senders

    @property
    def name(self) -> str:
        """Its name at the provider. A changed text has another name: WhatsApp does not allow a name twice."""
        plain = _NOT_IN_A_NAME.sub("_", self.template.name.lower())
        return f"{plain}_{self.mode.value}_{self.key.digest[:DIGEST_IN_NAME]}"

    @property
    def category(self) -> Category:
        """The category in which it is submitted."""
        return _CATEGORIES[self.template.info.kind]

    def examples(self) -> dict[str, str]:
        """An example for each placeholder, from the template's examples."""
        request = example_request(self.template, Channel.WHATSAPP, self.language, self.mode, None, self.senders)
        content = self.template.render(request)
        assert isinstance(content, WhatsApp)  # noqa: S101  the channel's content
        return dict(content.variables)


@dataclass(frozen=True, slots=True)
class TextStatus:
    """A text of the template folder and what the account knows of it. `checked_at` is None for a text that was not pushed."""

    template: str
    language: str
    mode: str
    name: str
    content_sid: str
    category: str
    status: str
    rejection_reason: str
    checked_at: datetime | None

    @property
    def is_approved(self) -> bool:
        """Whether it may be sent."""
        return self.status == TemplateStatus.APPROVED


# -- what people ask for -----------------------------------------------------------------------------------------------


def statuses(services: Services, name: str | None = None) -> list[TextStatus]:
    """Every text of the templates, or of one, with the status that the ledger has. Raises `BadInput` for an unknown name."""
    client = _client(services)
    with lend(services.pool) as connection:
        known = whatsapp_templates.find(connection, client.account)
    return [_status(local, known.get(local.key)) for local in _local_texts(services, client.account, name)]


def refresh(services: Services, name: str | None = None) -> list[TextStatus]:
    """Ask the provider for the status of every text of the account that the ledger knows, then as `statuses`.

    Raises `BadInput`, `TemplateApiError`.
    """
    client = _client(services)
    _check_name(services, name)
    _update(services, client, _list(client))
    return statuses(services, name)


def pull(services: Services, name: str | None = None) -> list[TextStatus]:
    """Find the texts that the account already has, and record their ids; then as `statuses`. Creates nothing.

    For a new ledger on an account in use, and for ids that are written in the files of a template: such an id counts only if the
    account has that very text under it. Raises `BadInput`, `TemplateApiError`.
    """
    client = _client(services)
    listed = _list(client)
    _adopt(services, client, listed, name)
    _update(services, client, listed)
    return statuses(services, name)


def push(services: Services, name: str | None = None) -> list[TextStatus]:
    """Create what the account does not have, submit what was not submitted, fetch all statuses; then as `statuses`.

    Repeating it is safe: a text that was created, even where the answer was lost, is found by its name. Raises `BadInput`, also
    for a template that could not be approved here, `PolicyNotInForce`, and `TemplateApiError`, also while another push runs; what
    was done until then is recorded, and the next push goes on.
    """
    return _push(services, name, is_checked=True)


def _push(services: Services, name: str | None = None, *, is_checked: bool = False) -> list[TextStatus]:
    """As `push`. Without the checks for the sandbox, which shows the texts to nobody: the linter takes a second for a template.
    Drafts are left out: their texts are those of another template."""
    client = _client(services)
    now = services.clock()
    with lend(services.pool) as connection:
        if not whatsapp_templates.begin_push(connection, client.account, now, now + PUSH_LEASE):
            raise PushRunning("another push of WhatsApp texts is running; try again in a minute")
    try:
        _push_missing(services, client, name, is_checked)
    finally:
        with lend(services.pool) as connection:
            whatsapp_templates.end_push(connection, client.account)
    return statuses(services, name)


def _push_missing(services: Services, client: TemplateClient, name: str | None, is_checked: bool) -> None:
    listed = _list(client)
    found = _adopt(services, client, listed, name)
    if is_checked:
        _check_texts(services, _unsubmitted(services, client.account, name, found))
    done = 0
    for local in _local_texts(services, client.account, name):
        if is_draft(local.template):
            continue
        match = found.get(local.key)
        if match is None:
            sid = _checked(client.create(_new_template(local)), "create", local, done)
            with lend(services.pool) as connection:
                whatsapp_templates.store(connection, [_row(local, sid, services.clock())])
        elif match.status is not TemplateStatus.UNSUBMITTED:
            continue
        else:
            sid = match.content_sid
        _checked(client.submit(sid, local.name, local.category), "submit", local, done)
        done += 1
        with lend(services.pool) as connection:
            whatsapp_templates.extend_push(connection, client.account, services.clock() + PUSH_LEASE)
    if done:
        listed = _list(client)
    _update(services, client, listed)


def _unsubmitted(services: Services, account: str, name: str | None, found: Mapping[TextKey, ProviderTemplate]) -> list[Template]:
    """The templates with a text that the account does not have, or that was not submitted."""
    texts = _local_texts(services, account, name)
    waiting = [each for each in texts if each.key not in found or found[each.key].status is TemplateStatus.UNSUBMITTED]
    return list({each.template.name: each.template for each in waiting}.values())


def _check_texts(services: Services, templates: Sequence[Template]) -> None:
    """Raise `BadInput` for drafts, and for findings that block an approval: WhatsApp keeps what it got, and rejects for a reason
    that nobody here can see."""
    if not templates:
        return
    with lend(services.pool) as connection:
        policies.require_in_force(connection, services.policy.digest)
    errors = [error for each in templates if (error := draft_error(each))]
    errors = errors or [error for each in templates for error in blocking_findings(services.policy, each)]
    if errors:
        raise BadInput(*errors)


def unapproved_texts(services: Services, name: str | None = None) -> list[TemplateError]:
    """A fault for each text that WhatsApp has not approved, as the ledger knows. Raises `BadInput`."""
    return [
        TemplateError(
            f"{text.template}/{text.language}/texts.toml",
            _line(services.catalog[text.template], text),
            f"whatsapp.{text.mode}",
            text.status,
            f"WhatsApp has not approved this text{': ' if text.rejection_reason else ''}{text.rejection_reason}",
        )
        for text in statuses(services, name)
        if not text.is_approved
    ]


def _line(template: Template, text: TextStatus) -> int:
    lines = template.source[f"{text.template}/{text.language}/texts.toml"].split("\n")
    return next((number for number, line in enumerate(lines, 1) if line.strip() == f"[whatsapp.{text.mode}]"), 1)


def whatsapp_needs(services: Services, connection: Connection, spec: Spec, templates: Iterable[Template]) -> Iterator[str]:
    """What people have to do before the campaign's WhatsApp messages can be sent."""
    if services.template_client is None or Channel.WHATSAPP not in spec.channels:
        return
    account = services.template_client.account
    known = whatsapp_templates.find(connection, account)
    for template in templates:
        locals_ = _locals(services, account, template)
        waiting = [local for local in locals_ if not _status(local, known.get(local.key)).is_approved]
        if waiting:
            yield (
                f"WhatsApp has not approved {len(waiting)} of the {len(locals_)} WhatsApp texts of {template.name}: "
                f"`dispatcher templates whatsapp push {template.name}`"
            )


# -- the maintenance step ----------------------------------------------------------------------------------------------


def poll(services: Services) -> None:
    """Keep the statuses up to date: at most one list of the account a minute. With the sandbox, push what is missing too.

    An error of the provider is logged as an alert, and the next step asks again.
    """
    client = services.template_client
    if client is None:
        return
    now = services.clock()
    try:
        if services.whatsapp_is_sandbox and _has_unpushed(services, client.account):
            _push(services)
            return
        with lend(services.pool) as connection:
            is_due = whatsapp_templates.take_due(
                connection,
                client.account,
                now - timedelta(seconds=UNDECIDED_SECONDS),
                now - timedelta(seconds=DECIDED_SECONDS),
                now,
            )
        if is_due:
            _update(services, client, _list(client))
    except PushRunning:
        return  # a worker that started at the same time
    except TemplateApiError:
        alert("whatsapp", "templates_unreadable")


def push_to_sandbox(services: Services) -> None:
    """Push all texts where WhatsApp is the sandbox: for demos, tests and benchmarks, which reach nobody."""
    if services.whatsapp_is_sandbox and services.template_client is not None:
        for _ in range(PUSH_TRIES):
            with suppress(PushRunning):  # of a worker
                _push(services)
                return
            services.sleep(1.0)


def _has_unpushed(services: Services, account: str) -> bool:
    with lend(services.pool) as connection:
        known = whatsapp_templates.find(connection, account)
    texts = [local for local in _local_texts(services, account) if not is_draft(local.template)]
    return any(local.key not in known or known[local.key].status == TemplateStatus.MISSING for local in texts)


# -- texts here, and texts there ---------------------------------------------------------------------------------------


def _client(services: Services) -> TemplateClient:
    if services.template_client is None:
        raise BadInput(InputError("whatsapp", 0, "provider", "the provider of WhatsApp messages has no templates to approve"))
    return services.template_client


def _local_texts(services: Services, account: str, name: str | None = None) -> list[LocalText]:
    _check_name(services, name)
    templates = [template for key, template in sorted(services.catalog.items()) if name in (None, key)]
    return [local for template in templates for local in _locals(services, account, template)]


def _check_name(services: Services, name: str | None) -> None:
    if name is not None:
        known_template(services.catalog, name)


def _locals(services: Services, account: str, template: Template) -> list[LocalText]:
    senders = senders_of(services.policy, template)
    return [LocalText(template, *place, text_key(account, template, *place), senders) for place in texts_of(template)]


def _new_template(local: LocalText) -> NewContent:
    return NewContent(local.name, local.language, local.text.text, local.text.buttons, local.examples())


def _list(client: TemplateClient) -> Sequence[ProviderTemplate]:
    listed = client.list_all()
    if isinstance(listed, ChannelError):
        raise TemplateApiError(f"the templates of the account can't be read: {_described(listed)}")
    return listed


def _checked(answer: str | ChannelError | None, action: str, local: LocalText, done: int) -> str:
    """The answer, unless it is an error."""
    if not isinstance(answer, ChannelError):
        return answer or ""
    which = f"{local.template.name} ({local.language}, {local.mode.value})"
    rest = f"; {done} submitted before it, and the next push goes on"
    raise TemplateApiError(f"the provider did not {action} the WhatsApp text of {which}: {_described(answer)}{rest}")


def _described(error: ChannelError) -> str:
    return ": ".join(filter(None, (type(error).__name__, error.code, error.hint)))


def _adopt(
    services: Services, client: TemplateClient, listed: Sequence[ProviderTemplate], name: str | None
) -> dict[TextKey, ProviderTemplate]:
    """The templates of the account that have the very texts of the folder, by text; their ids are recorded."""
    by_content: dict[object, list[ProviderTemplate]] = defaultdict(list)
    for each in listed:
        by_content[each.language, each.text.strip(), each.buttons].append(each)
    texts = {local.key: local for local in _local_texts(services, client.account, name)}
    found: dict[TextKey, ProviderTemplate] = {}
    for key, local in texts.items():
        for each in by_content[local.language, local.text.text, local.text.buttons]:
            if each.name == local.name or each.content_sid == local.text.content_sid:  # by our name, or by the id in its file
                found.setdefault(key, each)
    with lend(services.pool) as connection:
        known = whatsapp_templates.find(connection, client.account)
        new = [key for key, match in found.items() if key not in known or known[key].content_sid != match.content_sid]
        whatsapp_templates.store(connection, [_row(texts[key], found[key].content_sid, services.clock()) for key in new])
    return found


def _row(local: LocalText, content_sid: str, now: datetime) -> WhatsAppText:
    return WhatsAppText(
        local.key,
        local.name,
        content_sid,
        local.category.value,
        TemplateStatus.UNSUBMITTED.value,
        "",
        changed_at=now,
        checked_at=now,
    )


def _update(services: Services, client: TemplateClient, listed: Sequence[ProviderTemplate]) -> None:
    """Record what the account says about every text that the ledger knows; alert what stops messages."""
    by_sid = {each.content_sid: each for each in listed}
    now = services.clock()
    with lend(services.pool) as connection:
        known = whatsapp_templates.find(connection, client.account)
        updated = [_updated(text, by_sid.get(text.content_sid), now) for text in known.values()]
        whatsapp_templates.store(connection, updated)
    for text in updated:
        if text.status != known[text.key].status and text.status in _ALERTED:
            alert("whatsapp", f"template_{text.status}")


def _updated(text: WhatsAppText, there: ProviderTemplate | None, now: datetime) -> WhatsAppText:
    status, reason = TemplateStatus.MISSING, ""
    if there is not None:
        status, reason = there.status, there.rejection_reason
        if status is TemplateStatus.APPROVED and there.category != text.category:
            status, reason = TemplateStatus.RECATEGORISED, f"WhatsApp has it as {there.category or 'no category'}"
    return replace(text, status=status.value, rejection_reason=reason, changed_at=now, checked_at=now)


def _status(local: LocalText, text: WhatsAppText | None) -> TextStatus:
    return TextStatus(
        template=local.template.name,
        language=local.language,
        mode=local.mode.value,
        name=local.name,
        content_sid=text.content_sid if text else "",
        category=local.category.value,
        status=text.status if text else NOT_PUSHED,
        rejection_reason=text.rejection_reason if text else "",
        checked_at=text.checked_at if text else None,
    )
