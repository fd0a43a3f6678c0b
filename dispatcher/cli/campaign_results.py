"""`dispatcher campaign results` and `dispatcher campaign conversions`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from dispatcher.campaigns import overview, result_files, results
from dispatcher.campaigns.conversions import DEFAULT_GOAL, import_file
from dispatcher.cli.identity import acting, limit, noted
from dispatcher.cli.output import REFUSED, Json, err, fail, out, pairs, print_json, rows, show_left_out
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.campaign_results import Dimension, Measure, Step
from dispatcher.domain.principal import Right
from dispatcher.runtime import bootstrap
from dispatcher.web.serializers.results import conversions_view, results_view

CampaignId = Annotated[str, typer.Argument(metavar="ID", help="The campaign's id.")]
COUNTS = ("attempted", "accepted", "delivered", "read", "failed", "opted_out", "complained", "converted")
RATES = ("delivered", "read", "failed", "opted_out", "complained", "converted")
VERDICTS = {"higher": "higher", "lower": "lower", "no_difference_yet": "no difference yet"}


def add_to(app: typer.Typer) -> None:
    """Add the commands to the group `campaign`."""
    app.command("results")(show)
    app.command("conversions")(import_conversions)


def show(
    campaign_id: CampaignId,
    by: Annotated[Dimension | None, typer.Option(help="Also split by this.")] = None,
    step: Annotated[Step | None, typer.Option(help="The step of the time series. Default: one that suits its length.")] = None,
    export: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write all numbers to a .csv or .parquet file.")] = None,
    as_json: Json = False,
) -> None:
    """Show a campaign's results: rates with 95 % intervals, a time series, variants, and the effect against the control group."""
    if export is not None:
        result_files.format_of(export)
    services = bootstrap.services(on_faults=show_left_out)
    found = results.of_campaign(services, campaign_id, by, step, limit(services))
    if found is None:
        fail(f"no campaign has the id {campaign_id}", REFUSED)
    view = results_view(found)
    if export is not None:
        result_files.write(found, export)
    if as_json:
        print_json({**view, "file": str(export)} if export else view)
        return
    _print(view)
    if export is not None:
        out.print(f"\nwritten: {export}", markup=False)


def _print(view: dict[str, Any]) -> None:
    total = view["total"]
    counts = {name: total["counts"][name] for name in ("refused", "held_out", *COUNTS)}
    pairs("", {"id": view["id"], "state": view["state"], "audience": view["audience"], **counts})
    rows("\nrates", ("rate", "count", "of", "share", "95 % interval"), list(_rates(total["rates"])))
    if view["groups"]:
        shares = [
            (each["name"], each["counts"]["recipients"], *(_percent(each["rates"][name]["rate"]) for name in RATES))
            for each in view["groups"]
        ]
        rows(f"\nby {view['by']}", ("name", "recipients", *RATES), shares)
    if view["variants"]:
        _print_variants(view["variants"])
    if view["lifts"]:
        rows(
            "\nagainst the control group",
            ("outcome", "treated", "control", "difference", "95 % interval", "verdict"),
            list(_lifts(view["lifts"])),
        )
    if view["series"]:
        points = [(each["at"], *(each.get(measure, 0) for measure in Measure)) for each in view["series"]]
        rows(f"\nby {view['step']}", ("from", *Measure), points)


def _rates(shares: dict[str, dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for name, share in shares.items():
        if share["of"]:
            yield name, share["count"], share["of"], _percent(share["rate"]), _interval(share)


def _print_variants(comparison: dict[str, Any]) -> None:
    lines = [
        (name, share["count"], share["of"], _percent(share["rate"]), _interval(share))
        for name, share in comparison["shares"].items()
    ]
    rows(f"\nvariants by {comparison['measure']}", ("variant", "count", "of", "share", "95 % interval"), lines)
    out.print(f"winner: {comparison['winner']}" if comparison["winner"] else "no difference yet", markup=False)


def _lifts(lifts: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for lift in lifts:
        verdict = VERDICTS.get(lift["verdict"] or "", "")
        shares = (_percent(lift[group]["rate"]) for group in ("treated", "control"))
        yield lift["outcome"], *shares, _percent(lift["difference"], "+"), _interval(lift, "+"), verdict


def _percent(rate: float | None, sign: str = "") -> str:
    return "" if rate is None else f"{100 * rate:{sign}.2f} %"


def _interval(share: dict[str, Any], sign: str = "") -> str:
    return "" if share["low"] is None else f"{_percent(share['low'], sign)} to {_percent(share['high'], sign)}"


def import_conversions(
    campaign_id: CampaignId,
    file: Annotated[Path, typer.Argument(help="A .jsonl, .csv or .xlsx file with recipient, at and, if wanted, goal.")],
    goal: Annotated[str, typer.Option(help="The goal of rows without one.")] = DEFAULT_GOAL,
    as_json: Json = False,
) -> None:
    """Record who of the campaign, control group included, did what it is for. Rows about other people are not kept."""
    services = bootstrap.services(on_faults=show_left_out)
    campaign = overview.find(services, campaign_id, limit(services))
    if campaign is None:
        fail(f"no campaign has the id {campaign_id}", REFUSED)
    acting(services, Right.CAMPAIGNS, campaign.spec.entity)
    noted(services, AuditNote(AuditAction.IMPORT, "campaign", campaign_id, entity=campaign.spec.entity))
    view = conversions_view(import_file(services, campaign, file, goal))
    if as_json:
        print_json(view)
    else:
        pairs("", {name: value for name, value in view.items() if name != "faults"})
        for fault in view["faults"]:
            err.print(f"{file}:{fault['line']}: {fault['field']}: {fault['message']}", markup=False)
    if view["invalid"] and not view["new"] + view["known"]:
        raise typer.Exit(REFUSED)
