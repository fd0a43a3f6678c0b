"""A steady load, and concurrent opt-outs, imports, erasures, pauses and cancels, each with the time of its answer.

What got no answer is repeated, so the time of an answer is never before the commit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from tests.chaos.program import Program, Unanswered, repeat
from tests.support.services import add_people, person

MARK = "qxvzk"  # in every name and address: must be in no log
PHONES = "+32495"
OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
PAUSE_SECONDS = 1.8  # between two pieces of work
LANGUAGES = ("nl", "fr", "de", "en")


@dataclass(frozen=True, slots=True)
class CampaignKind:
    """How a campaign of the load is made."""

    name: str
    people: int
    options: dict[str, Any]
    couples: bool = False


KINDS = (
    CampaignKind("first", 70, {"channels": ["email", "sms"]}),
    CampaignKind("all", 30, {"channels": ["email", "sms", "push"], "route": "all"}),
    CampaignKind("fallback", 30, {"channels": ["push", "email"], "fallback_after_seconds": 2}),
    CampaignKind("household", 24, {"channels": ["sms"], "one_per_household": True}, couples=True),
    CampaignKind("whatsapp", 30, {"channels": ["whatsapp"]}),
)
TRIGGERS = 3


@dataclass(slots=True)
class Journal:
    """What was asked for and answered. Times are seconds since 1970."""

    campaigns: dict[str, CampaignKind] = field(default_factory=dict)  # accepted ones
    couples: dict[str, str] = field(default_factory=dict)  # recipient -> a name for the couple
    triggers: dict[str, str] = field(default_factory=dict)  # accepted: key -> recipient
    opt_outs: dict[str, float] = field(default_factory=dict)  # recipient -> answered at
    cancels: dict[str, float] = field(default_factory=dict)  # campaign -> answered at
    pauses: list[tuple[str, float, float]] = field(default_factory=list)  # campaign, answered at, resume asked at
    imports: int = 0
    erasures: int = 0
    unanswered: list[str] = field(default_factory=list)


class Load:
    """Submits work until it is stopped. All choices come from `rng`, when they happen depends on the machine."""

    def __init__(self, program: Program, rng: Random) -> None:
        self.program, self.journal = program, Journal()
        self._rng, self._numbers = rng, iter(range(1, 10**6))
        self._names = iter(range(1, 10**6))
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(12)
        self._running: list[Future[None]] = []
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, or go on."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def hold(self) -> None:
        """Submit nothing more."""
        self._stop.set()

    def stop(self) -> None:
        """Submit nothing more, and return when everything that was begun has its answer."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        while self._running:
            self._running.pop().result()

    def close(self) -> None:
        """End the threads."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            if self._rng.random() < 0.3:
                self._soon(0.0, self._triggers)
            else:
                kind = self._rng.choice(KINDS)
                self._soon(0.0, partial(self._campaign, kind, Random(self._rng.random())))

    def _soon(self, seconds: float, action: Callable[[], object]) -> None:
        def run() -> None:
            time.sleep(seconds)
            try:
                action()
            except (Unanswered, AssertionError) as error:
                self.journal.unanswered.append(str(error))

        self._running.append(self._pool.submit(run))

    def people(self, count: int, *, couples: bool = False) -> list[str]:
        """Import new people, and return their ids."""
        numbers = [next(self._numbers) for _ in range(count)]
        partners = {n: numbers[place ^ 1] for place, n in enumerate(numbers)} if couples else {}
        forms = [_person(n, partners.get(n)) for n in numbers]
        repeat(lambda: add_people(self.program.services, *forms), "import")
        self.journal.couples |= {f"c-{n}": f"{min(n, other)}" for n, other in partners.items()}
        return [f"c-{n}" for n in numbers]

    def submit(self, kind: CampaignKind, people: list[str]) -> str:
        """Submit a campaign and return its id, once it was accepted."""
        campaign = f"{kind.name}-{next(self._names)}"
        rows = [{"recipient": each, "data": OFFER} for each in people]
        form = {"id": campaign, "template": "loan_offer", "audience": rows, **kind.options}
        status, answer = self.program.insist("POST", "/v1/campaigns", form)
        assert status in {200, 201}, (status, answer)
        self.journal.campaigns[campaign] = kind
        return campaign

    def trigger(self, recipient: str) -> str:
        """Send a trigger and return its key, once it was accepted."""
        key = f"t-{next(self._names)}"
        form = {"key": key, "recipient": recipient, "template": "loan_offer", "channels": ["email"], "data": OFFER}
        status, answer = self.program.insist("POST", "/v1/messages", form)
        assert status == 202, (status, answer)
        self.journal.triggers[key] = recipient
        return key

    def opt_out(self, recipient: str) -> None:
        """Object to marketing."""
        form = {"object_marketing": True, "source": "mobile", "actor": "chaos"}
        status, answer = self.program.insist("PUT", f"/v1/recipients/{recipient}/preferences", form)
        assert status == 200, (status, answer)
        self.journal.opt_outs.setdefault(recipient, time.time())

    def erase(self, recipient: str) -> None:
        """Erase a person."""
        status, answer = self.program.insist("DELETE", f"/v1/recipients/{recipient}")
        assert status == 204, (status, answer)
        self.journal.opt_outs.setdefault(recipient, time.time())
        self.journal.erasures += 1

    def reimport(self, recipient: str) -> None:
        """Import the person again, with another profile."""
        form = _person(int(recipient[2:]), None) | {"has_current_account": False}
        form |= {"partner": None} if recipient not in self.journal.couples else {}
        repeat(lambda: add_people(self.program.services, {k: v for k, v in form.items() if v is not None}), "import")
        self.journal.imports += 1

    def _triggers(self) -> None:
        people = self.people(TRIGGERS)
        for each in people:
            self.trigger(each)
        self.opt_out(people[-1])

    def _campaign(self, kind: CampaignKind, rng: Random) -> None:
        people = self.people(kind.people, couples=kind.couples)
        campaign = self.submit(kind, people)
        chosen = rng.sample(people, 5)
        for place, each in enumerate(chosen):
            action = self.erase if place % 5 == 4 else self.reimport if place % 5 == 3 and not kind.couples else self.opt_out
            self._soon(rng.uniform(0.0, 3.0), partial(action, each))
        what = rng.random()
        if what < 0.12:
            self._soon(rng.uniform(0.2, 1.5), partial(self._cancel, campaign))
        elif what < 0.3:
            self._soon(rng.uniform(0.2, 1.0), partial(self._pause, campaign))

    def _cancel(self, campaign: str) -> None:
        status, _ = self.program.insist("POST", f"/v1/campaigns/{campaign}/cancel")
        if status == 200:  # else it had finished
            self.journal.cancels[campaign] = time.time()

    def _pause(self, campaign: str) -> None:
        status, _ = self.program.insist("POST", f"/v1/campaigns/{campaign}/pause")
        if status == 200:
            paused = time.time()
            time.sleep(3.0)
            self.journal.pauses.append((campaign, paused, time.time()))
            self.program.insist("POST", f"/v1/campaigns/{campaign}/resume")


def _person(number: int, partner: int | None) -> dict[str, Any]:
    phone = f"{PHONES}{number:06}"
    form = person(
        f"c-{number}",
        language=LANGUAGES[number % 4],
        email=f"{MARK}-{number}@home.example",
        phone=phone,
        whatsapp=phone,
        push=[{"token": f"{MARK}-device-{number}", "platform": "android", "permission": True}],
        profile={"identity": {"first_name": f"{MARK}name"}},
    )
    return form if partner is None else {**form, "partner": f"c-{partner}"}
