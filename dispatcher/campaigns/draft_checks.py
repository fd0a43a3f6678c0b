"""The dry run of a draft, and examples of its messages from real rows."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from channels.base import Channel, Email, Push, Sms, WhatsApp, assemble
from dispatcher.campaigns import drafts
from dispatcher.campaigns.drafts import Draft
from dispatcher.campaigns.dry_run import dry_run
from dispatcher.content import ContentRefusal, example_request
from dispatcher.delivery.hand_off import PreparedMessage
from dispatcher.domain.message import Mode, State
from dispatcher.domain.recipient import Language
from dispatcher.intake.campaign import Submission
from dispatcher.runtime.entity_senders import senders
from dispatcher.runtime.services import Services

DRY_RUN_ROWS_MAX = 100_000  # about a minute: a page waits for it
EXAMPLE_ROWS_MAX = 5_000  # among which examples are looked for
_TOKEN = re.compile(r"(/[up]/)[A-Za-z0-9_~.-]{16,}")


@dataclass(frozen=True, slots=True)
class Example:
    """A message as a recipient would get it, as text. `is_real`: with the recipient's own profile; else the profile's values are
    the template's examples, if anybody in the audience has such a value. Links that act for the recipient are cut."""

    recipient: str
    language: Language
    channel: Channel
    mode: Mode
    title: str
    text: str
    is_real: bool


def run(services: Services, draft: Draft) -> Draft:
    """Decide and render every message of a draft as at its start, and store the counts. Raises BadInput."""
    submission = drafts.submission_of(services, draft)
    audience = islice(submission.audience, DRY_RUN_ROWS_MAX)
    result = dry_run(services, replace(submission, audience=audience), _start(services, submission))
    total = result.audience + result.invalid
    counts = {
        "rows": total,
        "is_part": total == DRY_RUN_ROWS_MAX,
        **result.counts(),
        "cost": asdict(result.cost) if result.cost else None,
        "obstacles": [[each.channel, each.code, each.variable, count] for each, count in result.obstacles.most_common()],
        "as_of": draft.form.get("send_at"),
    }
    return drafts.save(services, replace(draft, dry_run=counts))


def _start(services: Services, submission: Submission) -> datetime | None:
    """The moment as at which a draft is decided: its start, where that is to come."""
    start = submission.spec.send_at
    return start if start is not None and start > services.clock() else None


def seconds_at_rate(counts: dict[str, Any], rate: float | None) -> float | None:
    """How long the messages of a dry run take at a rate; None without one."""
    return sum(counts["channels"].values()) / rate if rate else None


def examples(services: Services, draft: Draft, with_profiles: bool) -> list[Example]:
    """One message for each language and channel, from the first rows that get one. Nothing is sent or stored. Raises BadInput.

    With `with_profiles` they are what the recipients would get. Without, only the row's own values are real: who uploaded the file
    has them already. Optional variables that neither the row nor any profile of the audience has are left out: a message would
    else show here what no recipient gets, such as the representative example of a loan.
    """
    found: dict[tuple[str, str], tuple[PreparedMessage, str]] = {}
    in_profiles: set[str] = set()

    def keep(messages: Sequence[PreparedMessage]) -> None:
        for message in messages:
            entry = message.entry
            if entry.state is State.CLAIMED and message.outbounds and entry.channel:
                in_profiles.update(*entry.candidate.facts.profile.values())
                found.setdefault((entry.candidate.facts.language, entry.channel), (message, entry.document["job"][1]))

    submission = drafts.submission_of(services, draft)
    audience = islice(submission.audience, EXAMPLE_ROWS_MAX)
    dry_run(services, replace(submission, audience=audience), _start(services, submission), keep)
    return [_example(services, *found[key], None if with_profiles else in_profiles) for key in sorted(found)]


def _example(services: Services, message: PreparedMessage, template: str, in_profiles: Set[str] | None) -> Example:
    """The example of a message. `in_profiles`: what profiles have, for a person who may not see their values."""
    entry, outbound = message.entry, message.outbounds[0]
    facts, mode = entry.candidate.facts, Mode(entry.document["legs"][0][1])
    content, is_real = outbound.content, True
    if in_profiles is not None:
        shown, entity = services.catalog[template], entry.document["job"][0]
        names = senders(services.policy.entities[entity], entity)
        request = example_request(shown, outbound.channel, facts.language, mode, entry.candidate.data, names)
        optional = {name for name, variable in shown.variables.items() if not variable.required}
        absent = optional - in_profiles - entry.candidate.data.keys()
        request = replace(request, data={name: value for name, value in request.data.items() if name not in absent})
        try:
            content, is_real = shown.render(request), False
        except ContentRefusal as refusal:
            return Example(facts.recipient_id, facts.language, outbound.channel, mode, "", f"{refusal.code}", is_real=False)
    title, text = _texts(content)
    return Example(
        facts.recipient_id, facts.language, outbound.channel, mode, _TOKEN.sub(r"\1…", title), _TOKEN.sub(r"\1…", text), is_real
    )


def _texts(content: Any) -> tuple[str, str]:
    """The title and the text of a message."""
    match assemble(content):
        case Email(subject=subject, text=text):
            return subject, text
        case Push(title=title, body=body):
            return title, body
        case Sms(text=text):
            return "", text
        case WhatsApp() as message:
            return "", message.text or "\n".join(f"{number}: {value}" for number, value in sorted(message.variables.items()))
