"""The demo: made-up customers, a campaign over all channels, some triggers, on real engines against the sandbox.

At the end it checks itself: the balance against the audience, the sandbox's count against the ledger's, and each arrival against
the customers' choices, by a checker that uses neither policy nor ledger.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import reload
from pathlib import Path
from typing import Any

import celeryconfig
from channels.registry import plugins
from channels.sandbox.client import SandboxClient
from dispatcher.campaigns import overview, scheduler, submission
from dispatcher.campaigns.template_approval import approve_waiting
from dispatcher.campaigns.whatsapp_templates import push_to_sandbox
from dispatcher.cli.campaigns import print_campaign, wait_for
from dispatcher.cli.messages import explanation, print_explanation
from dispatcher.cli.output import err, out, progress, rows
from dispatcher.consent import recipients
from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, message_token
from dispatcher.delivery import messages
from dispatcher.delivery.approval_check import DIGEST_SHOWN
from dispatcher.demo.delivery_checker import DeliveryChecker
from dispatcher.demo.sample_customers import customers
from dispatcher.devserver.processes import default_workers
from dispatcher.devserver.stack import RunningStack, free_flower_port, free_port, run_stack
from dispatcher.devserver.supervisor import stop_signals
from dispatcher.domain.canaries import OptOutWay
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.embedded import EngineError, engines
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.maintenance.canaries import rounds
from dispatcher.maintenance.canaries.recipients import addresses_of
from dispatcher.maintenance.canaries.rounds import RoundResult
from dispatcher.policy import shipped
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services
from dispatcher.web.serializers.campaigns import campaign_view

CAMPAIGN = "spring-loan"
SEED = 2026
TRIGGERS = 30
OPT_OUT_SECONDS_MAX = 60.0
QUIET_HOURS = re.compile(r"^\w+ = \{ from = .+ \}$", re.MULTILINE)
PROJECTS = {
    "nl": ("je nieuwe keuken", "zonnepanelen", "een elektrische fiets"),
    "fr": ("votre nouvelle cuisine", "des panneaux solaires", "un vélo électrique"),
    "de": ("Ihre neue Küche", "eine Solaranlage", "ein Elektrofahrrad"),
    "en": ("your new kitchen", "solar panels", "an electric bike"),
}


class DemoFailed(Exception):
    """A check of the demo failed."""


@dataclass(frozen=True, slots=True)
class DemoStage:
    """What the steps of the demo share."""

    services: Services
    sandbox: SandboxClient
    people: Path
    count: int
    opt_outs: Sequence[RoundResult] = ()


def run(recipients: int, keep: bool, quiet: bool) -> dict[str, Any]:
    """Run the demo. Returns what it measured and checked, as plain data. `quiet` prints nothing on stdout. Raises `DemoFailed`."""
    home = Path(os.environ.get("DISPATCHER_HOME") or "var") / "demo"
    with _locked(home):
        _prepare_environment(home, recipients)
        err.print("starting PostgreSQL, Valkey, workers, the providers' sandbox and the web app …")
        settings = bootstrap.settings()
        with run_stack(settings, os.environ, default_workers(), free_flower_port() if keep else None) as program:
            os.environ.update(program.environ)
            bootstrap.settings.cache_clear()
            report = _run_steps(program, recipients, quiet)
            if keep:
                _keep_running(program)
        return report


def _run_steps(program: RunningStack, recipients: int, quiet: bool) -> dict[str, Any]:
    services = bootstrap.services()
    assert program.urls.sandbox  # noqa: S101  the demo's providers are the sandbox
    stage = DemoStage(services, SandboxClient(program.urls.sandbox), bootstrap.settings().home / "customers.jsonl", recipients)
    _import(stage)
    _approve(stage)
    with ThreadPoolExecutor(1) as canaries:  # while the campaign runs: then most is on its way
        opt_outs = canaries.submit(_opt_outs, services)
        _campaign(stage)
        triggers = _triggers(stage)
        stage = replace(stage, opt_outs=opt_outs.result())
    _wait_for_reports(stage)
    report = _check(stage, triggers)
    if not quiet:
        _print(stage, report)
    return report


# -- preparation -------------------------------------------------------------------------------------------------------


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One demo at a time, each in an empty folder. Engines of a demo that was killed are stopped first."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name("demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError("another demo is running in this folder; stop it, or set DISPATCHER_HOME to another one") from None
        if home.exists():
            with engines(home.absolute()):
                pass
            shutil.rmtree(home)
        home.mkdir(mode=0o700)
        yield


def _prepare_environment(home: Path, recipients: int) -> None:
    """Set the environment: sandbox providers even where real credentials are set, and no quiet hours, because it may be night."""
    prefixes = (prefix for plugin in plugins().values() for prefix in plugin.variable_prefixes)
    real = (*prefixes, "DISPATCHER_PROVIDER_", "DISPATCHER_FAILOVER_", "DISPATCHER_API_KEY")
    for name in [name for name in os.environ if name.startswith(real)]:
        del os.environ[name]
    policy = home / "policy.toml"
    policy.write_text(QUIET_HOURS.sub("", shipped()), encoding="utf-8")
    for name in ("DISPATCHER_DATABASE_URL", "DISPATCHER_BROKER_URL", "DISPATCHER_STORE_URL"):
        os.environ.pop(name, None)
    os.environ.update(
        DISPATCHER_HOME=str(home.absolute()),
        DISPATCHER_POLICY=str(policy.absolute()),
        DISPATCHER_PUBLIC_URL=f"http://127.0.0.1:{free_port()}",
        DISPATCHER_SANDBOX_URL=f"http://127.0.0.1:{free_port()}",
    )
    os.environ.setdefault("DISPATCHER_CANARIES", "on")
    reload(celeryconfig)  # it has read the broker's URL of before
    today = datetime.now(UTC).date()
    (home / "customers.jsonl").touch(mode=0o600)
    with (home / "customers.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in customers(recipients, SEED, today))


# -- steps -------------------------------------------------------------------------------------------------------------


def _import(stage: DemoStage) -> None:
    rejects = stage.people.with_suffix(".rejected.jsonl")
    with progress("customers", stage.count) as (bar, task):
        imported = recipients.import_recipients(
            stage.services, stage.people, rejects, "demo", lambda done: bar.update(task, completed=done)
        )
    if imported.rejected:
        raise DemoFailed(f"{imported.rejected} made-up customers were rejected")


def _people(stage: DemoStage) -> Iterator[dict[str, Any]]:
    with stage.people.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _approve(stage: DemoStage) -> None:
    """Approve all templates, as a second person does before a commercial text is used; have the sandbox approve WhatsApp texts."""
    for version in approve_waiting(stage.services, "demo"):
        template = version.template
        err.print(f"approved: template {template.name}, version {template.version}, {template.digest[:DIGEST_SHOWN]}")
    push_to_sandbox(stage.services)


def _campaign(stage: DemoStage) -> None:
    """Submit a loan offer to everybody, on the first channel that each allows; one in fifty is in the control group."""
    services = stage.services
    form = {
        "id": CAMPAIGN,
        "template": "loan_offer",
        "channels": ["whatsapp", "push", "sms", "email"],
        "holdout_percent": 2,
        "expires_at": (services.clock() + timedelta(days=14)).isoformat(),
        "audience": [{"recipient": person["id"], "data": _offer(index, person)} for index, person in enumerate(_people(stage))],
    }
    from dispatcher import tasks

    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    tasks.publish(scheduler.due_chunks(services))
    wait_for(services, CAMPAIGN)


def _offer(index: int, person: Mapping[str, Any]) -> dict[str, Any]:
    projects = PROJECTS[person["language"]]
    return {
        "project": projects[index % len(projects)],
        "amount": 5_000 + 500 * (index % 40),
        "offer_url": "https://www.kbc-bank.example/loan",
    }


def _triggers(stage: DemoStage) -> dict[str, str]:
    """Publish single jobs on the broker as the profiling pipeline does. Returns the template by message id."""
    from dispatcher import tasks

    template_by_key: dict[str, str] = {}
    for index, person in zip(range(TRIGGERS), _people(stage), strict=False):
        template = "coin_earned" if index % 3 else "optout_acknowledgement"
        template_by_key[f"demo-{index}"] = template
        job = {"key": f"demo-{index}", "recipient": person["id"], "template": template, "data": _trigger_data(template)}
        tasks.trigger.apply_async((job,))
    ids = _await_triggers(stage.services, list(template_by_key))
    return {str(message_id): template_by_key[key] for key, message_id in ids.items()}


def _trigger_data(template: str) -> dict[str, Any]:
    if template == "optout_acknowledgement":
        return {"scope": "email"}
    return {"coins_earned": 5, "merchant": "Café Minuit", "coins_url": "https://www.kbc-bank.example/kate-coins"}


def _await_triggers(services: Services, keys: list[str], seconds_max: float = 60.0) -> Mapping[str, MessageId]:
    deadline = time.monotonic() + seconds_max
    with progress("triggers", len(keys)) as (bar, task):
        while True:
            decided = messages.decided_triggers(services, keys)
            bar.update(task, completed=len(decided))
            if len(decided) == len(keys):
                return decided
            if time.monotonic() > deadline:
                raise DemoFailed(f"{len(keys) - len(decided)} triggers are not decided after {seconds_max:.0f} s")
            services.sleep(0.1)


def _opt_outs(services: Services) -> Sequence[RoundResult]:
    """Let canary recipients opt out in each way, and measure how long messages are still under way."""
    from dispatcher import tasks

    return rounds.run_once(services, tasks.publish, OPT_OUT_SECONDS_MAX)


def _wait_for_reports(stage: DemoStage) -> None:
    """Wait until the sandbox has sent all delivery reports, and the ledger has applied them."""
    with progress("delivery reports", None):
        stage.sandbox.wait_for_events(120.0)
        while provider_events.any_pending(stage.services):
            stage.services.sleep(0.2)


# -- checks and output -------------------------------------------------------------------------------------------------


def _check(stage: DemoStage, triggers: Mapping[str, str]) -> dict[str, Any]:
    services = stage.services
    status = overview.status(services, CAMPAIGN)
    assert status is not None  # noqa: S101  it was submitted above
    accepted = messages.accepted_count(services)
    states = Counter(message.state for each in triggers if (message := messages.find(services, MessageId.parse(each))))
    view = campaign_view(status, services.clock())
    canaries = {place for way in OptOutWay for place in addresses_of(services, way).items()}
    arrivals = [each for each in stage.sandbox.log() if (each["channel"], each["address"]) not in canaries]
    templates = {arrival["message_id"]: "loan_offer" for arrival in arrivals} | dict(triggers)
    errors = DeliveryChecker(_people(stage), datetime.now(UTC).date()).judge(arrivals, templates)
    arrived = len({arrival["message_id"] for arrival in arrivals})
    checks = {
        "balance equals audience": sum(view["balance"].values()) == view["audience"] == stage.count,
        "sandbox's messages equal the ledger's accepted": arrived == accepted,
        "nothing arrived that a choice forbids": not errors,
        "no canary got a message too late after its opt-out": not any(each.is_late for each in stage.opt_outs),
    }
    report = {
        "campaign": view,
        "triggers": states,
        "opt_outs": [asdict(each) for each in stage.opt_outs],
        "arrived": arrived,
        "checks": checks,
        "faults": errors[:20],
    }
    if not all(checks.values()):
        raise DemoFailed(json.dumps({"checks": checks, "faults": errors[:20], "arrived": arrived, "accepted": accepted}, indent=2))
    return report


def _print(stage: DemoStage, report: Mapping[str, Any]) -> None:
    print_campaign(report["campaign"])
    rows("\ntriggers", ("state", "messages"), list(report["triggers"].items()))
    names = ("way", "outcome", "claim_seconds", "hand_off_seconds", "arrival_seconds")
    lines = [[each[name] for name in names] for each in report["opt_outs"]]
    rows("\nopt-outs of canary recipients: the last message after each", [name.replace("_", " ") for name in names], lines)
    out.print()
    for check in report["checks"]:
        out.print(f"[green]✓[/green] {check}")
    out.print("\nThree messages, explained to their recipients:")
    for state, language in ((State.DELIVERED, "en"), (State.REFUSED, "fr"), (State.HELD_OUT, "nl")):
        if message := messages.first_in_state(stage.services, CAMPAIGN, state):
            out.print()
            print_explanation(explanation(stage.services, message, language))
    out.print("\n`KEEP=1 make demo` leaves all this running and prints the URLs. `make up` is the same for real use.")


def _keep_running(program: RunningStack) -> None:
    """Print the URLs and run until Ctrl-C."""
    services = bootstrap.services()
    message = messages.first_in_state(services, CAMPAIGN, State.DELIVERED)
    assert message is not None  # noqa: S101  a demo that delivers nothing has failed before
    unsubscribe, preferences = (message_token(services.secret, purpose, str(message.ref)) for purpose in (UNSUBSCRIBE, PREFERENCES))
    urls = program.urls
    out.print("\nRunning. Ctrl-C stops it.")
    for name, url in {
        "console": f"{urls.web}/console",
        "  sign in as": "local",
        "  password": program.password,
        "  API key": program.key,
        "sandbox inbox": urls.sandbox,
        "preference centre": f"{urls.web}/p/{preferences}",
        "one-click unsubscribe": f"{urls.web}/u/{unsubscribe}",
        "Flower": urls.flower,
        "  user:password": program.flower_login,
    }.items():
        out.print(f"  {name:22} {url}")
    with stop_signals() as stop_requested:
        program.processes.watch(stop_requested)
