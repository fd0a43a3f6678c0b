"""Campaigns: their rows and their changes of state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.domain.campaign import CampaignState, Spec
from dispatcher.domain.principal import Entities, is_same_principal
from dispatcher.ledger.connection import Connection, fetch_all
from dispatcher.ledger.entity_scope import entity_parameter, has_entity
from dispatcher.ledger.events import outbox
from dispatcher.ledger.message_key import KEY, same_chunk, same_job
from dispatcher.ledger.spec_codec import spec_from_json, spec_to_json


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign's row. `audience` counts its valid audience rows, `invalid` the others."""

    no: int
    id: str
    period: int
    state: CampaignState
    spec: Spec
    fanned_out: bool
    audience: int
    invalid: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    submitted_by: str
    released_by: str | None
    note: str
    version: int  # the number of its edits
    results_recorded: bool  # delivery reports and origins of opt-outs are recorded as they come; not for campaigns of long ago

    @property
    def is_loading(self) -> bool:
        """Whether its audience is still being loaded: `audience` counts the rows so far, and nothing starts."""
        return self.state is CampaignState.SCHEDULED and not self.fanned_out

    @property
    def release_mark(self) -> str:
        """What a release is given for: its edits and its rows. It is not given for what is added later."""
        return f"{self.version}.{self.audience}.{self.invalid}"


@dataclass(frozen=True, slots=True)
class NewCampaign:
    """What a campaign is created with. `templates` names the version of each template: name -> digest; `by` names the submitter."""

    id: str
    spec: Spec
    period: int
    templates: Mapping[str, str] = field(default_factory=dict)
    by: str = ""


def create(connection: Connection, campaign: NewCampaign, now: datetime) -> int | None:
    """Write a new campaign's row, `scheduled` and without an audience: its number, or None where the id is taken.

    Call it in the transaction that loads the audience or its first part, and `ensure_period` before that transaction.
    """
    row = connection.execute(
        """
        INSERT INTO campaigns (id, period, state, spec, template_digests, digest, digest_version, created_at, submitted_by)
        VALUES (%s, %s, 'scheduled', %s, %s, '', 3, %s, %s) ON CONFLICT (id) DO NOTHING RETURNING no
        """,
        (campaign.id, campaign.period, spec_to_json(campaign.spec), Jsonb(dict(campaign.templates)), now, campaign.by),
    ).fetchone()
    return int(row[0]) if row else None


def complete(connection: Connection, no: int, digest: bytes, invalid: int, awaiting_release: bool = False, note: str = "") -> None:
    """Mark a campaign's audience as complete; from now on it may start, or be released. The digest is of version 3.

    The note says why it has to be released.
    """
    state = CampaignState.AWAITING_RELEASE if awaiting_release else CampaignState.SCHEDULED
    connection.execute(
        "UPDATE campaigns SET fanned_out = true, digest = %s, digest_version = 3, invalid = %s, state = %s, note = %s"
        " WHERE no = %s",
        (digest, invalid, state, note, no),
    )


@dataclass(frozen=True, slots=True)
class WaitingCampaign:
    """A campaign that waits for its release, locked: rows can be added to it."""

    no: int
    period: int
    spec: Spec
    created_at: datetime
    audience: int


def lock_waiting(connection: Connection, campaign_id: str) -> WaitingCampaign | None:
    """Lock a campaign that waits for its release; None for any other. Who releases it waits for the end of the transaction."""
    row = connection.execute(
        """
        SELECT no, period, spec, created_at,
               (SELECT coalesce(sum(size), 0)::int FROM chunks k WHERE k.period = c.period AND k.campaign_no = c.no)
        FROM campaigns c WHERE id = %s AND state = 'awaiting_release' FOR UPDATE
        """,
        (campaign_id,),
    ).fetchone()
    return WaitingCampaign(row[0], row[1], spec_from_json(row[2]), row[3], row[4]) if row else None


def template_digests(connection: Connection, campaign_id: str) -> dict[str, str]:
    """The versions of a campaign's templates: name -> digest."""
    row = connection.execute("SELECT template_digests FROM campaigns WHERE id = %s", (campaign_id,)).fetchone()
    return dict(row[0]) if row and row[0] else {}


def note_added(connection: Connection, no: int, invalid: int, note: str) -> None:
    """Count the unreadable ones among the rows that were added, and add to the note."""
    connection.execute(
        "UPDATE campaigns SET invalid = invalid + %s, note = concat_ws('; ', nullif(note, ''), %s::text) WHERE no = %s",
        (invalid, note, no),
    )


def commonest_error(connection: Connection, no: int) -> tuple[str, str, int] | None:
    """The error that most of a campaign's stored errors are: field, message, and number of rows."""
    row = connection.execute(
        "SELECT field, message, count(*) FROM audience_faults WHERE campaign_no = %s GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 1", (no,)
    ).fetchone()
    return (row[0], row[1], row[2]) if row else None


@dataclass(frozen=True, slots=True)
class StoredSubmission:
    """What was submitted under an id, to compare a repeated submission with."""

    digest: bytes
    version: int  # how the digest was computed
    spec: Spec
    created_at: datetime

    @property
    def has_no_rows(self) -> bool:
        """Whether the digest is that of the form only: the campaign ended while its audience was loaded."""
        return self.version == 3 and len(self.digest) == 32


def submission_of(connection: Connection, campaign_id: str) -> StoredSubmission | None:
    """What was submitted under this id; None where nothing was."""
    row = connection.execute(
        "SELECT digest, digest_version, spec, created_at FROM campaigns WHERE id = %s", (campaign_id,)
    ).fetchone()
    return StoredSubmission(bytes(row[0]), row[1], spec_from_json(row[2]), row[3]) if row else None


_SELECT = """
    SELECT c.no, c.id, c.period, c.state, c.spec, c.fanned_out,
           (SELECT coalesce(sum(size), 0)::int FROM chunks k WHERE k.period = c.period AND k.campaign_no = c.no) AS audience,
           c.invalid, c.created_at, c.started_at, c.finished_at, c.submitted_by, c.released_by, c.note,
           c.version, c.results_recorded
    FROM campaigns c
"""


_HAS_ENTITY = has_entity("c.spec->>'entity'")


def _campaign(row: dict[str, Any]) -> Campaign:
    return Campaign(**{**row, "state": CampaignState(row["state"]), "spec": spec_from_json(row["spec"])})


def find(connection: Connection, campaign_id: str, entities: Entities = None) -> Campaign | None:
    """The campaign of this id, where it is one of these entities."""
    statement = f"{_SELECT} WHERE c.id = %(id)s AND {_HAS_ENTITY}"
    rows = fetch_all(connection, statement, {"id": campaign_id, **entity_parameter(entities)})
    return _campaign(rows[0]) if rows else None


@dataclass(frozen=True, slots=True)
class CampaignFilter:
    """What a list of campaigns is limited to: those with all these tags, of this cost centre (None: any), and of these entities."""

    tags: tuple[str, ...] = ()
    cost_centre: str | None = None
    entities: Entities = None


ALL_CAMPAIGNS = CampaignFilter()


def newest(connection: Connection, limit: int, wanted: CampaignFilter = ALL_CAMPAIGNS) -> list[Campaign]:
    """The newest campaigns, newest first."""
    statement = (
        _SELECT + "WHERE coalesce(c.spec->'tags', '[]') @> %(tags)s"
        " AND (%(cost_centre)s::text IS NULL OR c.spec->>'cost_centre' = %(cost_centre)s)"
        f" AND {_HAS_ENTITY} ORDER BY c.no DESC LIMIT %(limit)s"
    )
    own = {"tags": Jsonb(list(wanted.tags)), "cost_centre": wanted.cost_centre, "limit": limit}
    values = {**own, **entity_parameter(wanted.entities)}
    return [_campaign(row) for row in fetch_all(connection, statement, values)]


def audience_errors(connection: Connection, no: int, limit: int) -> list[tuple[int, str, str]]:
    """Invalid audience rows: (line, field, what is wrong)."""
    rows = connection.execute(
        "SELECT line, field, message FROM audience_faults WHERE campaign_no = %s ORDER BY line LIMIT %s", (no, limit)
    )
    return [(line, field, message) for line, field, message in rows]


# -- changes of state --------------------------------------------------------------------------------------------------
# Each locks the campaign's row, on which the claim gate holds a shared lock: after the commit of such a change, no message of the
# campaign is claimed.


def start_due(connection: Connection, now: datetime) -> int:
    """Start every scheduled campaign that is due and whose audience is complete; returns their number."""
    return connection.execute(
        """
        UPDATE campaigns SET state = 'running', started_at = coalesce(started_at, %(now)s)
        WHERE state = 'scheduled' AND fanned_out
          AND coalesce((spec->>'send_at')::timestamptz, created_at) <= %(now)s
        """,
        {"now": now},
    ).rowcount


def release(connection: Connection, campaign_id: str, by: str, seen: str = "") -> bool:
    """Awaiting release -> scheduled, by another person than who submitted it or changed what it sends. Else False, as for another
    state, and where it has another `release_mark` than the one that the person saw.

    It then starts at once or at its `send_at`. Overdue chunks are sent at its rate: see `pace`.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT no, submitted_by FROM campaigns WHERE id = %s AND state = 'awaiting_release' FOR UPDATE", (campaign_id,)
        ).fetchone()
        if row is None or not by.strip():
            return False
        no, submitted_by = row
        if seen and (present := find(connection, campaign_id)) and present.release_mark != seen:  # now nobody can change it
            return False
        edits = connection.execute("SELECT actor FROM campaign_edits WHERE campaign_no = %s AND is_material", (no,))
        if any(is_same_principal(by, each) for each in (submitted_by, *(actor for (actor,) in edits))):
            return False
        connection.execute("UPDATE campaigns SET state = 'scheduled', released_by = %s WHERE no = %s", (by, no))
        return True


def pause_by_id(connection: Connection, campaign_id: str, now: datetime) -> bool:
    """Running or scheduled -> paused. False in any other state, and while the audience is loaded: it may have to be released."""
    return bool(
        connection.execute(
            "UPDATE campaigns SET state = 'paused', paused_at = %s"
            " WHERE id = %s AND state IN ('running', 'scheduled') AND fanned_out",
            (now, campaign_id),
        ).rowcount
    )


def pause_with_note(connection: Connection, no: int, note: str, now: datetime) -> bool:
    """Running -> paused, with a note that says why. False in any other state."""
    return bool(
        connection.execute(
            "UPDATE campaigns SET state = 'paused', paused_at = %s, note = %s WHERE no = %s AND state = 'running'", (now, note, no)
        ).rowcount
    )


def pause_campaigns_of_template(connection: Connection, template: str, digest: str, note: str, now: datetime) -> int:
    """Pause every running campaign that uses this version of a template, or names no version, with a note; returns their number."""
    return connection.execute(
        """
        UPDATE campaigns SET state = 'paused', paused_at = %(now)s, note = %(note)s
        WHERE state = 'running' AND (spec->>'template' = %(template)s OR EXISTS (
            SELECT FROM jsonb_array_elements(spec->'variants') v WHERE v->>1 = %(template)s))
          AND coalesce(template_digests->>%(template)s, %(digest)s) = %(digest)s
        """,
        {"now": now, "note": note, "template": template, "digest": digest},
    ).rowcount


def resume(connection: Connection, campaign_id: str, _: datetime) -> bool:
    """Paused -> scheduled; it then starts at once or at its `send_at`. False in any other state.

    Due times do not change; overdue chunks are sent at the campaign's rate: see `pace`. The note is cleared. The time is not used:
    all actions on a campaign have the same parameters.
    """
    with connection.transaction():
        row = connection.execute(
            "UPDATE campaigns SET state = 'scheduled', note = '' WHERE id = %s AND state = 'paused' RETURNING no, period",
            (campaign_id,),
        ).fetchone()
        if row is None:
            return False
        no, period = row
        connection.execute(
            "UPDATE chunks SET touched_at = NULL WHERE period = %s AND campaign_no = %s AND done_at IS NULL",
            (period, no),
        )
    return True


def cancel(connection: Connection, campaign_id: str, now: datetime) -> bool:
    """Stop for good. False where the campaign had ended already.

    Pending, held and waiting messages, and jobs without a message, become `cancelled`. Claimed messages continue.
    """
    with connection.transaction():
        row = connection.execute(
            """
            UPDATE campaigns SET state = 'cancelled', finished_at = %s
            WHERE id = %s AND state NOT IN ('finished', 'cancelled') RETURNING no, period
            """,
            (now, campaign_id),
        ).fetchone()
        if row is not None:
            _cancel_messages(connection, row[0], row[1], now)
    return row is not None


def cancel_abandoned(connection: Connection, days: int, now: datetime) -> str | None:
    """Cancel one campaign that has been paused, or has waited for its release, for more than so many days; its id, or None.

    The days count from its `send_at` where that is later, so a campaign planned for next year is not cancelled. The note says why
    it was cancelled, and keeps why it was paused.
    """
    with connection.transaction():
        row = connection.execute(
            """
            UPDATE campaigns SET state = 'cancelled', finished_at = %(now)s, note = concat_ws('; before: ',
                format('cancelled by the policy: %%s for more than %%s days',
                       CASE state WHEN 'paused' THEN 'paused' ELSE 'not released' END, %(days)s::int), nullif(note, ''))
            WHERE no = (
                SELECT no FROM campaigns
                WHERE state IN ('paused', 'awaiting_release') AND %(before)s > greatest(
                    CASE state WHEN 'paused' THEN paused_at ELSE created_at END, (spec->>'send_at')::timestamptz)
                LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING id, no, period
            """,
            {"now": now, "days": days, "before": now - timedelta(days=days)},
        ).fetchone()
        if row is not None:
            _cancel_messages(connection, row[1], row[2], now)
    return row[0] if row is not None else None


def _cancel_messages(connection: Connection, no: int, period: int, now: datetime) -> None:
    parameters = {"now": now, "no": no, "period": period}
    connection.execute(
        f"""
        WITH cancelled AS (
            UPDATE messages m SET state = 'cancelled', reason = 'cancelled', until = NULL, updated_at = %(now)s
            FROM chunks k
            WHERE k.period = %(period)s AND k.campaign_no = %(no)s AND {same_chunk("m", "k")}
              AND m.state IN ('pending', 'held', 'waiting')
            RETURNING {outbox.changed("m")}
        )
        {outbox.enter("cancelled")}
        """,
        parameters,
    )
    connection.execute(  # no other leg follows
        f"""
        UPDATE messages m SET until = NULL FROM chunks k
        WHERE k.period = %(period)s AND k.campaign_no = %(no)s AND {same_chunk("m", "k")}
          AND m.until IS NOT NULL
        """,
        parameters,
    )
    connection.execute(
        f"""
        WITH cancelled AS (
            INSERT INTO messages ({KEY}, campaign_no, updated_at, recipient_id, state, reason, decision)
            SELECT j.period, j.chunk, j.row, 0, j.campaign_no, %(now)s, j.recipient_id, 'cancelled', 'cancelled', '{{}}'
            FROM chunks k JOIN jobs j ON {same_chunk("j", "k")}
            WHERE k.period = %(period)s AND k.campaign_no = %(no)s AND k.done_at IS NULL
              AND NOT EXISTS (SELECT FROM messages m WHERE {same_job("m", "j")})
            RETURNING {outbox.changed("messages")}
        )
        {outbox.enter("cancelled")}
        """,
        parameters,
    )
    connection.execute(
        f"""
        UPDATE chunks k SET done_at = %(now)s
        WHERE k.period = %(period)s AND k.campaign_no = %(no)s AND k.done_at IS NULL
          AND NOT EXISTS (
            SELECT FROM messages m WHERE {same_chunk("m", "k")} AND m.state = 'claimed')
        """,
        parameters,
    )


def finish_completed(connection: Connection, now: datetime, no: int | None = None) -> int:
    """Finish every running campaign (or the one given) in which nothing is left to do; returns their number."""
    return connection.execute(
        """
        UPDATE campaigns c SET state = 'finished', finished_at = %(now)s
        WHERE c.state = 'running' AND c.fanned_out AND (%(no)s::bigint IS NULL OR c.no = %(no)s)
          AND NOT EXISTS (SELECT FROM chunks k WHERE k.campaign_no = c.no AND k.done_at IS NULL)
          AND NOT EXISTS (SELECT FROM messages m WHERE m.until IS NOT NULL AND m.campaign_no = c.no)
        """,
        {"now": now, "no": no},
    ).rowcount
