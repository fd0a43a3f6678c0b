"""Rows that are added to a campaign which waits for its release, such as mended ones that could not be read before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from dispatcher.domain.principal import is_same_principal
from dispatcher.intake.campaign import SubmissionDigest, checked_rows
from dispatcher.intake.partner_links import PartnerLinks
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.campaigns.audience import AudienceError, AudienceLoader, AudienceRow, values_with_links
from dispatcher.ledger.connection import Connection, allow_idle_minute, lend
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_versions import TemplateUnavailable

ERRORS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class AddedRows:
    """How many rows were added to a campaign, and how many could not be read, with the first of these; or why none was added."""

    added: int = 0
    invalid: int = 0
    errors: tuple[AudienceError, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class RowSource:
    """Rows to add, read once, and the name of their file in errors."""

    rows: Iterable[AudienceRow | AudienceError]
    file: str


def add_rows(services: Services, campaign_id: str, source: RowSource, by: str) -> AddedRows | None:
    """Add rows to a campaign that waits for its release, all in one transaction; None where no campaign has this id.

    Only its submitter may: otherwise who adds rows could release them without a second pair of eyes. A recipient who is in the
    campaign already gets no second message: the policy refuses the row as `duplicate`, so the whole mended file can be added. Links
    to partners are compared with those of the rows that the campaign has. Raises `BadInput`.
    """
    with lend(services.pool) as connection:
        campaign, digests = lifecycle.find(connection, campaign_id), lifecycle.template_digests(connection, campaign_id)
    if campaign is None:
        return None
    try:
        versions = services.versions.load(services.pool, services.policy, services.catalog, digests)
    except TemplateUnavailable as error:
        return AddedRows(refusal=f"its template cannot be read: {error}")
    templates = [versions[digests[name]] for name in campaign.spec.templates]
    with lend(services.pool) as connection, connection.transaction():
        allow_idle_minute(connection)
        waiting = lifecycle.lock_waiting(connection, campaign_id)
        if waiting is None:
            return AddedRows(refusal=f"cannot add rows to a campaign that is {campaign.state}")
        if not is_same_principal(by, campaign.submitted_by):
            return AddedRows(refusal=f"it was submitted by {campaign.submitted_by or 'nobody known'}, who alone can add rows")
        links = PartnerLinks(services.policy.entities.get(waiting.spec.entity), source.file)
        links.compare_with(values_with_links(connection, waiting.no, waiting.period))
        loader = AudienceLoader(connection, waiting.no, waiting.period, waiting.spec, waiting.created_at, waiting.audience)
        rows = links.checked(checked_rows(source.rows, templates, SubmissionDigest()))
        errors = _write(loader, rows, services.limits.part_rows)
        return _note(connection, waiting.no, AddedRows(loader.rows_written - waiting.audience, loader.invalid, errors))


def _write(loader: AudienceLoader, rows: Iterator[AudienceRow | AudienceError], part_rows: int) -> tuple[AudienceError, ...]:
    """Write the rows part by part; the first errors among them."""
    errors: list[AudienceError] = []
    while part := list(islice(rows, part_rows)):
        loader.write(part)
        errors += [row for row in part if isinstance(row, AudienceError)][: ERRORS_SHOWN - len(errors)]
    return tuple(errors)


def _note(connection: Connection, no: int, result: AddedRows) -> AddedRows:
    lifecycle.note_added(connection, no, result.invalid, f"{result.added} rows were added, {result.invalid} could not be read")
    return result
