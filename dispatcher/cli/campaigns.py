"""`dispatcher campaign …`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import click
import typer

from dispatcher.campaigns import actions, audience_fetch, dry_run, editing, overview, row_addition, submission
from dispatcher.campaigns.actions import CampaignAction
from dispatcher.campaigns.drafts import submitted_entity
from dispatcher.campaigns.overview import Campaign, CampaignFilter, CampaignStatus
from dispatcher.campaigns.row_addition import RowSource
from dispatcher.campaigns.submission import SubmitStatus
from dispatcher.cli import campaign_results, schedules
from dispatcher.cli.broker import start_due
from dispatcher.cli.identity import acting, confirm_person, limit, noted, viewer
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, err, fail, out, pairs, print_json, progress, rows, show_left_out
from dispatcher.cli.waiting import Patience, Timeout
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.errors import VersionConflict
from dispatcher.domain.message import State
from dispatcher.domain.principal import Right
from dispatcher.intake.audience import read_audience
from dispatcher.intake.campaign import CampaignRequest, check_campaign, read_request
from dispatcher.intake.campaign_edit import parse_edit
from dispatcher.maintenance.policy_in_force import why_halted
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services
from dispatcher.web.serializers.campaigns import campaign_line, campaign_view, dry_run_view

app = typer.Typer(help="Submit, watch and stop campaigns.", no_args_is_help=True)
app.add_typer(schedules.app, name="schedule")
campaign_results.add_to(app)

CampaignId = Annotated[str, typer.Argument(metavar="ID", help="The campaign's id.")]
ENDED = (CampaignState.FINISHED, CampaignState.CANCELLED)
OPEN = (State.PENDING, State.CLAIMED, State.HELD, State.WAITING, State.UNRESOLVED)
POLL_SECONDS = 0.5
ERRORS_SHOWN = 20


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="The campaign, as YAML.")],
    audience: Annotated[Path | None, typer.Option(help="A .jsonl, .csv or .xlsx file, instead of the one that FILE names.")] = None,
    dry_run_only: Annotated[
        bool, typer.Option("--dry-run", help="Decide and render every message; send and keep nothing.")
    ] = False,
    as_of: Annotated[datetime | None, typer.Option(help="With --dry-run: as at that past moment (UTC).")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the campaign has finished.")] = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Submit a campaign with its audience. Running workers start on it at once."""
    services = bootstrap.services(on_faults=show_left_out)
    me = viewer(services).id
    sources = audience_fetch.sources(services, me, me)
    parsed = read_request(file, audience, services.policy.files, sources)
    if dry_run_only:
        _dry_run(services, parsed, as_of, as_json)
        return
    who = acting(services, Right.CAMPAIGNS, submitted_entity(services, parsed))
    noted(services, AuditNote(AuditAction.SUBMIT, "campaign", parsed.id, entity=parsed.form.entity))
    if timeout is not None and not wait:
        fail("--timeout needs --wait", BAD_INPUT)
    if as_of:
        fail("--as-of needs --dry-run: a real campaign is sent now", BAD_INPUT)
    with progress("loading audience", None) as (bar, task):

        def show(done: int) -> None:
            bar.update(task, completed=done)

        result = submission.accept(services, parsed, show, who)
        while result.status is SubmitStatus.LOADING:  # by another process: go on where it ends, or take its result
            show(result.audience)
            services.sleep(POLL_SECONDS)
            parsed = read_request(file, audience, services.policy.files, sources)
            result = submission.accept(services, parsed, show, who)
    if result.status is SubmitStatus.CONFLICT:
        fail(f"{file}: id: campaign {parsed.id!r} was submitted before with other content; give this one another id", BAD_INPUT)
    start_due(services)
    if wait:
        wait_for(services, parsed.id, timeout)
    _show(services, parsed.id, as_json)


@app.command("dry-run")
def dry_run_(
    file: Annotated[Path, typer.Argument(help="The campaign, as YAML.")],
    audience: Annotated[Path | None, typer.Option(help="A .jsonl, .csv or .xlsx file, instead of the one that FILE names.")] = None,
    as_of: Annotated[datetime | None, typer.Option(help="As at that moment (UTC).")] = None,
    as_json: Json = False,
) -> None:
    """Decide and render every message of a campaign, and show the counts; send and keep nothing."""
    services = bootstrap.services(on_faults=show_left_out)
    sources = audience_fetch.sources(services, viewer(services).id)
    _dry_run(services, read_request(file, audience, services.policy.files, sources), as_of, as_json)


def _dry_run(services: Services, request: CampaignRequest, as_of: datetime | None, as_json: bool) -> None:
    moment = as_of.replace(tzinfo=UTC) if as_of else None
    try:
        checked = check_campaign(request, submission.validation_context(services, moment))
        _show_dry_run(dry_run_view(request.id, dry_run.dry_run(services, checked, moment)), as_json)
    finally:
        audience_fetch.discard(services, request)


def wait_for(services: Services, campaign_id: str, timeout: float | None = None) -> None:
    """Show progress until the campaign has finished, or waits for its release. Fails after `timeout` seconds."""
    patience = Patience(services, f"campaign {campaign_id}", timeout)
    with progress(campaign_id, None) as (bar, task):
        while True:
            found = _status(services, campaign_id)
            campaign, states = found.campaign, {state: count for state, count in found.balance.states.items() if count}
            decided = campaign.audience - states.get(State.PENDING, 0)
            bar.update(task, completed=decided, total=campaign.audience, description=f"{campaign_id}: {campaign.state}")
            if campaign.state in ENDED:
                return
            if campaign.state is CampaignState.AWAITING_RELEASE:
                err.print(f"somebody else has to release it: dispatcher campaign release {campaign_id}", markup=False)
                return
            open_ = ", ".join(f"{states[state]:,} {state}" for state in OPEN if state in states)
            patience.pause((campaign.state, states), f"{campaign.state}; {open_ or 'nothing open'}", POLL_SECONDS)


def _status(services: Services, campaign_id: str) -> CampaignStatus:
    return overview.status(services, campaign_id, limit(services)) or _unknown(campaign_id)


def _entity(services: Services, campaign_id: str) -> str:
    return _campaign(services, campaign_id).spec.entity


def _campaign(services: Services, campaign_id: str) -> Campaign:
    """The campaign; one of another entity is answered like an unknown one."""
    return overview.find(services, campaign_id, limit(services)) or _unknown(campaign_id)


def _unknown(campaign_id: str) -> NoReturn:
    fail(f"no campaign has the id {campaign_id}", REFUSED)


def _show_dry_run(view: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    pairs("", {name: view[name] for name in ("id", "audience", "invalid")})
    for name in ("states", "reasons", "channels", "variants"):
        if view[name]:
            rows(f"\n{name}", (name[:-1], "recipients"), list(view[name].items()))
    if view["sms"]:
        rows("\nsms", ("segments", "messages"), list(view["sms"].items()))
        rows("\nsegments", ("country", "segments"), list(view["segments"].items()))
    if view["cost"]:
        out.print(f"\ncost of the text messages: {_cost_text(view['cost'])}", markup=False)
    for need in view["needs"]:
        out.print(f"\nbefore it starts: {need}", markup=False)


def _cost_text(cost: dict[str, Any]) -> str:
    unpriced = f"; no price for {', '.join(cost['unpriced'])}" if cost["unpriced"] else ""
    return f"{cost['total']:.2f} {cost['currency']}{unpriced}"


@app.command("list")
def list_(
    tags: Annotated[
        list[str] | None, typer.Option("--tag", help="Only those with this tag; may be repeated: with all of them.")
    ] = None,
    cost_centre: Annotated[str | None, typer.Option(help="Only those of this cost centre.")] = None,
    count: Annotated[int, typer.Option("--limit", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """List the newest campaigns."""
    services = bootstrap.services(on_faults=show_left_out)
    wanted = CampaignFilter(tuple(tags or ()), cost_centre, limit(services))
    lines = [campaign_line(campaign) for campaign in overview.newest(services, count, wanted)]
    if as_json:
        print_json(lines)
    elif not lines:
        out.print("no campaign yet")
    else:
        names = ("id", "state", "template", "audience", "invalid", "created", "started", "finished", "tags", "cost centre")
        rows("", names, [tuple(", ".join(each) if isinstance(each, list) else each for each in line.values()) for line in lines])


@app.command()
def show(campaign_id: CampaignId, as_json: Json = False) -> None:
    """Show a campaign's balance: the states of its recipients, and the reasons."""
    _show(bootstrap.services(on_faults=show_left_out), campaign_id, as_json)


def _show(services: Services, campaign_id: str, as_json: bool) -> None:
    found = _status(services, campaign_id)
    view = campaign_view(found, services.clock())
    if as_json:
        print_json(view)
        return
    print_campaign(view)
    if found.campaign.state not in ENDED and (reason := why_halted(services)):
        err.print(f"\n{reason}", markup=False)
    if found.campaign.invalid:
        errors = overview.unreadable_rows(services, found.campaign, ERRORS_SHOWN)
        rows("\nrows that could not be read", ("line", "field", "why"), errors)


def print_campaign(view: dict[str, Any]) -> None:
    """Print a campaign as tables."""
    names = ("id", "state", "template", "entity", "audience", "invalid", "started_at", "finished_at", "messages_per_second")
    optional = [
        name
        for name in (
            *("send_at", "expires_at", "rate_per_second", "sender", "reply_to", "tags", "cost_centre"),
            *("submitted_by", "released_by", "note", "loading"),
        )
        if view[name]
    ]
    pairs("", {name: ", ".join(view[name]) if name == "tags" else view[name] for name in (*names, *optional)})
    rows("\nbalance", ("state", "recipients"), [(state, count) for state, count in view["balance"].items() if count])
    if view["reasons"]:
        rows("\nreasons", ("reason", "recipients"), list(view["reasons"].items()))
    if any(view["variants"].values()):
        rows("\nvariants", ("variant", "state", "messages", "share"), list(_by_variant(view["variants"])))
    if view["channels"]:
        lines = [(channel, state, count) for channel, states in sorted(view["channels"].items()) for state, count in states.items()]
        rows("\nchannels", ("channel", "state", "messages"), lines)

    if view["edits"]:
        edits = [(each["version"], each["at"], each["by"], _changes_text(each["changes"])) for each in view["edits"]]
        rows("\nedits", ("version", "at", "by", "changes"), edits)


def _changes_text(changes: dict[str, list[Any]]) -> str:
    return "; ".join(
        f"{name}: {'none' if old is None else old} → {'none' if new is None else new}" for name, (old, new) in changes.items()
    )


def _by_variant(variants: dict[str, dict[str, int]]) -> Iterator[tuple[str, str, int, str]]:
    for name, states in variants.items():
        total = sum(states.values())
        for state, count in states.items():
            yield name, state, count, f"{count / total:.1%}"


def _act(campaign_id: str, action: CampaignAction, as_json: bool) -> None:
    """Apply an action. A campaign that is in the wanted state already needs no change, and the command succeeds."""
    services = bootstrap.services(on_faults=show_left_out)
    right = Right.RELEASE if action is CampaignAction.RELEASE else Right.PAUSE
    who = acting(services, right, _entity(services, campaign_id))
    if action is CampaignAction.RELEASE:
        confirm_person(services)
    act = AuditNote(AuditAction(action.value), "campaign", campaign_id)
    noted(services, act)
    result = actions.apply(services, campaign_id, action, who) or _unknown(campaign_id)
    if result.refusal is not None:
        fail(f"campaign {campaign_id}: {result.refusal}", REFUSED)
    if action in (CampaignAction.RESUME, CampaignAction.RELEASE):
        start_due(services)
    _show(services, campaign_id, as_json)


@app.command()
def release(campaign_id: CampaignId, as_json: Json = False) -> None:
    """Let a campaign start that is large, or has many unreadable rows: somebody other than the submitter confirms it."""
    _act(campaign_id, CampaignAction.RELEASE, as_json)


@app.command("add-rows")
def add_rows(
    campaign_id: CampaignId,
    file: Annotated[Path, typer.Argument(help="The mended rows: a .jsonl, .csv or .xlsx file.")],
    as_json: Json = False,
) -> None:
    """Add rows to a campaign that waits for its release, such as those that could not be read before.

    A recipient whom the campaign has already gets no second message.
    """
    services = bootstrap.services(on_faults=show_left_out)
    source = RowSource(read_audience(file, services.policy.files), str(file))
    who = acting(services, Right.CAMPAIGNS, _entity(services, campaign_id))
    noted(services, AuditNote(AuditAction.ADD_ROWS, "campaign", campaign_id))
    result = row_addition.add_rows(services, campaign_id, source, who) or _unknown(campaign_id)
    if result.refusal is not None:
        fail(f"campaign {campaign_id}: {result.refusal}", REFUSED)
    if not as_json:
        out.print(f"added: {result.added}, could not be read: {result.invalid}")
    _show(services, campaign_id, as_json)


@app.command()
def edit(
    campaign_id: CampaignId,
    send_at: Annotated[
        str | None, typer.Option(help="When it starts, with its zone: 2026-12-01T09:00:00+01:00. `none`: at once.")
    ] = None,
    rate_per_second: Annotated[str | None, typer.Option(help="Messages a second; `none`: no limit.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="When it expires, with its zone; `none`: never.")] = None,
    priority: Annotated[str | None, typer.Option(help="0 (first) to 9 (last).")] = None,
    if_version: Annotated[int | None, typer.Option(help="Only if it has this version: nobody edited it since.")] = None,
    as_json: Json = False,
) -> None:
    """Change options of a campaign that is scheduled, awaiting release or paused. Another time, rate or expiry voids a release."""
    given = {"send_at": send_at, "rate_per_second": rate_per_second, "expires_at": expires_at, "priority": priority}
    changes = parse_edit({name: None if text == "none" else text for name, text in given.items() if text is not None})
    services = bootstrap.services(on_faults=show_left_out)
    who = acting(services, Right.CAMPAIGNS, _entity(services, campaign_id))
    noted(services, AuditNote(AuditAction.CHANGE, "campaign", campaign_id, detail={"fields": sorted(changes)}))
    try:
        result = editing.edit(services, campaign_id, changes, who, if_version) or _unknown(campaign_id)
    except VersionConflict as error:
        fail(f"campaign {campaign_id}: {error}", REFUSED)
    if result.refusal is not None:
        fail(f"campaign {campaign_id}: {result.refusal}", REFUSED)
    _show(services, campaign_id, as_json)


@app.command()
def pause(campaign_id: CampaignId, as_json: Json = False) -> None:
    """Send nothing more of the campaign until it is resumed."""
    _act(campaign_id, CampaignAction.PAUSE, as_json)


@app.command()
def resume(campaign_id: CampaignId, as_json: Json = False) -> None:
    """Continue a paused campaign."""
    _act(campaign_id, CampaignAction.RESUME, as_json)


@app.command()
def cancel(campaign_id: CampaignId, as_json: Json = False) -> None:
    """Stop a campaign finally: messages that are not sent yet become `cancelled`."""
    _act(campaign_id, CampaignAction.CANCEL, as_json)


@app.command()
def export(
    campaign_id: CampaignId,
    file: Annotated[Path | None, typer.Option(help="Default: stdout.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON array with an object per message, not CSV.")] = False,
) -> None:
    """Write one CSV line per message: line, recipient, message id, channel, state, reason. No addresses, no contents."""
    services = bootstrap.services(on_faults=show_left_out)
    campaign = _campaign(services, campaign_id)
    with click.open_file(str(file or "-"), "wb") as target:
        (overview.export_json if as_json else overview.export_csv)(services, campaign, target.write)
    if file and as_json:
        print_json({"file": str(file)})
    elif file:
        out.print(f"written: {file}", markup=False)
