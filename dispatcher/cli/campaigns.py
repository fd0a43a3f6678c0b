"""`dispatcher campaign …`."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from dispatcher.campaigns import dry_run as dry_run_module
from dispatcher.campaigns import scheduler
from dispatcher.campaigns import submission as submission_module
from dispatcher.campaigns.submission import SubmitStatus
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, err, fail, out, pairs, print_json, progress, rows
from dispatcher.domain.campaign import CampaignState
from dispatcher.intake.campaign import read_campaign
from dispatcher.ledger.campaigns import balance as balance_module
from dispatcher.ledger.campaigns import csv_export, lifecycle
from dispatcher.ledger.connection import Connection, lend
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services
from dispatcher.web.serializers import campaign_line, campaign_view, dry_run_view

app = typer.Typer(help="Submit, watch and stop campaigns.", no_args_is_help=True)

CampaignId = Annotated[str, typer.Argument(metavar="ID", help="The campaign's id.")]
ENDED = (CampaignState.FINISHED, CampaignState.CANCELLED)
PATIENCE_SECONDS = 10.0  # without any progress, --wait wonders aloud whether a worker runs


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="The campaign, as YAML.")],
    audience: Annotated[Path | None, typer.Option(help="A .jsonl or .csv file, in place of the one that FILE names.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and write every message, send and keep nothing.")] = False,
    as_of: Annotated[datetime | None, typer.Option(help="With --dry-run: as at that past moment (UTC).")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the campaign has ended.")] = False,
    by: Annotated[str, typer.Option(help="Who submits it; a large one is released by somebody else.")] = "",
    as_json: Json = False,
) -> None:
    """Take in a campaign with its audience; running workers start on it at once."""
    services = bootstrap.services()
    submission = read_campaign(file, audience, submission_module.validation_context(services))
    if dry_run:
        moment = as_of.replace(tzinfo=UTC) if as_of else None
        _show_rehearsal(dry_run_view(submission.id, dry_run_module.dry_run(services, submission, moment)), as_json)
        return
    if as_of:
        fail("--as-of goes with --dry-run: what is sent is sent now", BAD_INPUT)
    with progress("taking in", None) as (bar, task):
        admission = submission_module.submit(services, submission, lambda done: bar.update(task, completed=done), by or _me())
    if admission.taken is SubmitStatus.CONFLICT:
        fail(
            f"{file}: id: campaign {submission.id!r} was submitted before with other content; give this one another id",
            BAD_INPUT,
        )
    _start(services)
    if wait:
        wait_for(services, submission.id)
    _show(services, submission.id, as_json)


def _me() -> str:
    """The name of this account; empty where it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def _start(services: Services) -> None:
    """Put what is due on the broker. Without a broker it starts when there is one: the ledger has it."""
    from dispatcher import tasks

    try:
        tasks.publish(scheduler.due_chunks(services))
    except tasks.BROKER_FAULTS:
        err.print("the broker can't be reached; the campaign is in the ledger and starts when it is back")


def wait_for(services: Services, campaign_id: str) -> None:
    """Show progress until the campaign has ended."""
    with progress(campaign_id, None) as (bar, task):
        still, last = 0.0, -1
        while True:
            campaign, balance = _state(services, campaign_id)
            decided = campaign.audience - balance.states["pending"]  # type: ignore[index]
            bar.update(task, completed=decided, total=campaign.audience)
            if campaign.state in ENDED:
                return
            if campaign.state is CampaignState.AWAITING_RELEASE:
                err.print(
                    f"it waits until somebody else releases it: dispatcher campaign release {campaign_id} --by NAME", markup=False
                )
                return
            still, last = (still + 0.5, last) if decided == last else (0.0, decided)
            if still == PATIENCE_SECONDS:
                err.print("nothing moves: is a worker running? (`dispatcher up`, or `celery -A dispatcher worker`)")
            services.sleep(0.5)


def _state(services: Services, campaign_id: str) -> tuple[lifecycle.Campaign, balance_module.Balance]:
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, campaign_id)
        if campaign is None:
            fail(f"no campaign has the id {campaign_id}", REFUSED)
        return campaign, balance_module.balance(connection, campaign)


def _show_rehearsal(view: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    pairs("", {name: view[name] for name in ("id", "audience", "invalid")})
    for name in ("states", "reasons", "channels", "variants"):
        if view[name]:
            rows(f"\n{name}", (name[:-1], "recipients"), list(view[name].items()))
    for need in view["needs"]:
        out.print(f"\nbefore it starts: {need}", markup=False)


@app.command("list")
def list_(limit: Annotated[int, typer.Option(min=1)] = 50, as_json: Json = False) -> None:
    """The newest campaigns."""
    services = bootstrap.services()
    with lend(services.pool) as connection:
        lines = [campaign_line(campaign) for campaign in lifecycle.newest(connection, limit)]
    if as_json:
        print_json(lines)
    else:
        rows("", ("id", "state", "template", "audience", "created", "finished"), [tuple(line.values()) for line in lines])


@app.command()
def show(campaign_id: CampaignId, as_json: Json = False) -> None:
    """A campaign's balance: where each recipient stands, and why."""
    _show(bootstrap.services(), campaign_id, as_json)


def _show(services: Services, campaign_id: str, as_json: bool) -> None:
    campaign, balance = _state(services, campaign_id)
    view = campaign_view(campaign, balance, services.clock())
    if as_json:
        print_json(view)
        return
    print_campaign(view)
    if campaign.invalid:
        with lend(services.pool) as connection:
            faults = lifecycle.audience_errors(connection, campaign.no, 20)
        rows("\nrows that could not be read", ("line", "field", "why"), faults)


def print_campaign(view: dict[str, Any]) -> None:
    """A campaign as tables."""
    names = ("id", "state", "template", "entity", "audience", "invalid", "started_at", "finished_at", "messages_per_second")
    told = [name for name in ("submitted_by", "released_by", "note") if view[name]]
    pairs("", {name: view[name] for name in (*names, *told)})
    rows("\nbalance", ("state", "recipients"), [(state, count) for state, count in view["balance"].items() if count])
    if view["reasons"]:
        rows("\nreasons", ("reason", "recipients"), list(view["reasons"].items()))
    if any(view["variants"].values()):
        rows("\nvariants", ("variant", "state", "messages", "share"), list(_by_variant(view["variants"])))
    if view["channels"]:
        lines = [(channel, state, count) for channel, states in sorted(view["channels"].items()) for state, count in states.items()]
        rows("\nchannels", ("channel", "state", "messages"), lines)


def _by_variant(variants: dict[str, dict[str, int]]) -> Iterator[tuple[str, str, int, str]]:
    for name, states in variants.items():
        total = sum(states.values())
        for state, count in states.items():
            yield name, state, count, f"{count / total:.1%}"


def _change(campaign_id: str, verb: str, change: Callable[[Connection, str, datetime], bool], as_json: bool) -> None:
    services = bootstrap.services()
    with lend(services.pool) as connection:
        if lifecycle.find(connection, campaign_id) is None:
            fail(f"no campaign has the id {campaign_id}", REFUSED)
        changed = change(connection, campaign_id, services.clock())
    if not changed:
        campaign, _ = _state(services, campaign_id)
        mine = verb == "release" and campaign.state is CampaignState.AWAITING_RELEASE
        why = f"submitted by {campaign.submitted_by}: somebody else has to release it" if mine else f"there is nothing to {verb}"
        fail(f"campaign {campaign_id} is {campaign.state}: {why}", REFUSED)
    if verb in ("resume", "release"):
        _start(services)
    _show(services, campaign_id, as_json)


@app.command()
def release(
    campaign_id: CampaignId,
    by: Annotated[str, typer.Option(help="Who releases it: somebody else than who submitted it.")],
    as_json: Json = False,
) -> None:
    """Let a campaign start whose audience is so large that a second person has to say yes."""

    def change(connection: Connection, name: str, now: datetime) -> bool:
        return lifecycle.release(connection, name, by, now)

    _change(campaign_id, "release", change, as_json)


@app.command()
def pause(campaign_id: CampaignId, as_json: Json = False) -> None:
    """Stop claiming messages until resumed."""
    _change(campaign_id, "pause", lifecycle.pause, as_json)


@app.command()
def resume(campaign_id: CampaignId, as_json: Json = False) -> None:
    """Go on where the campaign was paused."""
    _change(campaign_id, "resume", lifecycle.resume, as_json)


@app.command()
def cancel(campaign_id: CampaignId, as_json: Json = False) -> None:
    """Stop for good: what is not handed over becomes `cancelled`."""
    _change(campaign_id, "cancel", lifecycle.cancel, as_json)


@app.command()
def export(campaign_id: CampaignId, file: Annotated[Path | None, typer.Option(help="Default: stdout.")] = None) -> None:
    """One line per recipient as CSV: id, line, channel, state, reason. No addresses, no contents."""
    services = bootstrap.services()
    campaign, _ = _state(services, campaign_id)
    with lend(services.pool) as connection, click.open_file(str(file or "-"), "wb") as target:
        csv_export.campaign_csv(connection, campaign, target.write)
    if file:
        out.print(f"written: {file}", markup=False)
