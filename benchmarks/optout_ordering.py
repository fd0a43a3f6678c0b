"""Record opt-outs at random moments in running campaigns: is a message claimed after one, and how late is the last arrival?"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from channels.base import Channel
from channels.sandbox import SandboxClient
from dispatcher.campaigns import scheduler, submission
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.preferences import Change
from dispatcher.domain.recipient import GROUP_OF
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.recipient_import import parse
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events, recipients
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.maintenance import diagnostics
from dispatcher.runtime.services import Services

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
OPT_OUTS = (
    ("channel:email", "off"),
    ("channel:push", "off"),
    ("channel:sms_whatsapp", "off"),
    ("offer:own", "none"),
    ("objection:marketing", "on"),
)
ALL_CHANNELS = ("offer:own", "objection:marketing")
COVERED: Mapping[str, frozenset[Channel]] = {
    subject: frozenset(channel for channel in Channel if subject in (*ALL_CHANNELS, f"channel:{GROUP_OF[channel]}"))
    for subject, _ in OPT_OUTS
}


@dataclass(frozen=True, slots=True)
class TimedOptOut:
    """One opt-out: its scope, and when its transaction had committed (unix seconds, the machine's clock)."""

    recipient_id: str
    covered: frozenset[Channel]
    committed_at: float


@dataclass(frozen=True, slots=True)
class OptOutRace:
    """The result of a race. `late_claims` must be zero. `last_arrival_seconds` is the longest time from the commit of an opt-out
    to the arrival of a message that it covers and that was claimed before it."""

    opt_outs: int
    arrivals: int
    refused: int
    late_claims: int
    arrived_after: int
    last_arrival_seconds: float


def race_optouts(worker_services: Sequence[Services], sandbox: SandboxClient, people: int, rng: random.Random) -> OptOutRace:
    """Run a campaign per channel, with one worker thread per service container, while half of the people opt out."""
    ids = [f"c-{number}" for number in range(people)]
    _add_people(worker_services[0], ids)
    for channel in Channel:
        form = {"id": f"race-{channel}", "template": "loan_offer", "channels": [channel], "audience": [_row(id_) for id_ in ids]}
        submission.submit(worker_services[0], parse_campaign(form, submission.validation_context(worker_services[0])))
    workers = [threading.Thread(target=_run_chunks, args=(services,)) for services in worker_services]
    for worker in workers:
        worker.start()
    opt_outs = [_opt_out(worker_services[0], id_, rng) for id_ in rng.sample(ids, people // 2)]
    for worker in workers:
        worker.join()
    return _compare(worker_services[0], sandbox, opt_outs)


def _row(recipient_id: str) -> dict[str, Any]:
    return {"recipient": recipient_id, "data": OFFER}


def _add_people(services: Services, ids: Sequence[str]) -> None:
    batch = [parse(_person(id_, number), services.clock()) for number, id_ in enumerate(ids)]
    with lend(services.pool) as connection:
        recipients.upsert(connection, services.secret, batch, "race", services.clock())


def _person(recipient_id: str, number: int) -> dict[str, Any]:
    phone = f"+32450{number:06d}"
    return {
        "id": recipient_id,
        "person": "customer",
        "language": "en",
        "birth_date": "1980-01-31",
        "entities": ["kbc-bank"],
        "email": f"{recipient_id}@example.org",
        "phone": phone,
        "whatsapp": phone,
        "push": [{"token": f"device-{recipient_id}", "platform": "android", "permission": True}],
        "offers": {"own": "tailored"},
    }


def _run_chunks(services: Services) -> None:
    """A worker's loop without a broker: run chunks until none is due."""
    while dues := scheduler.due_chunks(services):
        for due in dues:
            chunk = run_chunk(services, due.period, due.number)
            if chunk is not None:
                dues += scheduler.next_chunk(services, chunk)


def _opt_out(services: Services, recipient_id: str, rng: random.Random) -> TimedOptOut:
    time.sleep(rng.random() * 0.01)
    subject, value = rng.choice(OPT_OUTS)
    now = services.clock()
    with lend(services.pool) as connection:
        events.record(
            connection,
            services.secret,
            ConsentStatement(recipient_id, (Change(subject, value),), now),
            Provenance("mobile", "race"),
            now,
        )
    return TimedOptOut(recipient_id, COVERED[subject], time.time())


def _compare(services: Services, sandbox: SandboxClient, opt_outs: Sequence[TimedOptOut]) -> OptOutRace:
    opt_out_of = {opt_out.recipient_id: opt_out for opt_out in opt_outs}
    arrived = {arrival["message_id"]: arrival["at"] for arrival in sandbox.log()}
    late_claims, delays = 0, [0.0]
    with lend(services.pool) as connection:
        rows = diagnostics.claims(connection)
    refused = sum(state == "refused" for _, _, _, state, _ in rows)
    for message_id, recipient_id, channel, _state, claimed_at in rows:
        opt_out = opt_out_of.get(recipient_id)
        if opt_out is None or claimed_at is None or channel not in opt_out.covered:
            continue
        late_claims += claimed_at.timestamp() > opt_out.committed_at
        if message_id in arrived and arrived[message_id] > opt_out.committed_at:
            delays.append(arrived[message_id] - opt_out.committed_at)
    return OptOutRace(len(opt_outs), len(arrived), refused, late_claims, len(delays) - 1, max(delays))
