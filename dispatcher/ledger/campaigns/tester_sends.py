"""Messages to testers: written before they are sent, settled afterwards. No other table counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from dispatcher.domain.campaign import Spec
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.spec_codec import spec_from_json


@dataclass(frozen=True, slots=True)
class NewTesterSend:
    """A message to a tester, to be recorded before it is sent. `campaign_no` is set for a seed of a campaign."""

    template: str
    digest: str
    tester: str
    channel: str
    language: str
    mode: str
    actor: str
    campaign_no: int | None
    at: datetime


@dataclass(frozen=True, slots=True)
class TesterSend(NewTesterSend):
    """A recorded message to a tester. `state` is sending, accepted, failed, uncertain, or what the provider reported later."""

    no: int
    state: str
    code: str | None
    provider: str | None
    receipt: str | None
    settled_at: datetime | None


_NEW = "template, digest, tester, channel, language, mode, actor, campaign_no, at"
_FIELDS = f"{_NEW}, no, state, code, provider, receipt, settled_at"


def add(connection: Connection, new: NewTesterSend) -> int | None:
    """Record a message that is going to be sent: its number, or None for a seed that was recorded before."""
    row = connection.execute(
        f"INSERT INTO test_sends ({_NEW}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING no",
        (new.template, new.digest, new.tester, new.channel, new.language, new.mode, new.actor, new.campaign_no, new.at),
    ).fetchone()
    return row[0] if row else None


@dataclass(frozen=True, slots=True)
class TesterSendResult:
    """What became of a message to a tester."""

    state: str
    code: str | None = None
    provider: str | None = None
    receipt: str | None = None


def settle(connection: Connection, no: int, result: TesterSendResult, now: datetime) -> TesterSend:
    """Record the provider's answer."""
    row = connection.execute(
        "UPDATE test_sends SET state = %s, code = %s, provider = %s, receipt = %s, settled_at = %s WHERE no = %s"
        f" RETURNING {_FIELDS}",
        (result.state, result.code, result.provider, result.receipt, now, no),
    ).fetchone()
    assert row is not None  # noqa: S101  rows are never deleted
    return TesterSend(*row)


def record_reports(connection: Connection, reports: Sequence[tuple[int, str, str | None]], now: datetime) -> None:
    """Record what providers reported: (number, state, code). A number that is unknown is ignored."""
    connection.execute(
        """
        UPDATE test_sends t SET state = r.state, code = coalesce(r.code, t.code), settled_at = %(now)s
        FROM jsonb_to_recordset(%(reports)s) AS r (no bigint, state text, code text) WHERE t.no = r.no
        """,
        {"now": now, "reports": Jsonb([{"no": no, "state": state, "code": code} for no, state, code in reports])},
    )


def newest(connection: Connection, template: str | None, limit: int) -> list[TesterSend]:
    """The newest messages to testers, newest first, of one template or of all."""
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM test_sends WHERE template = coalesce(%s, template) ORDER BY no DESC LIMIT %s", (template, limit)
    )
    return [TesterSend(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class SeededCampaign:
    """A campaign that waits for its release and whose testers have not got it. `template_digests` is template -> digest."""

    no: int
    id: str
    spec: Spec
    template_digests: dict[str, str]


def without_seeds(connection: Connection, limit: int = 10) -> list[SeededCampaign]:
    """Campaigns that wait for their release, have seeds, and have sent none."""
    rows = connection.execute(
        """
        SELECT c.no, c.id, c.spec, c.template_digests FROM campaigns c
        WHERE c.state = 'awaiting_release' AND c.spec ? 'seeds'
          AND NOT EXISTS (SELECT FROM test_sends t WHERE t.campaign_no = c.no)
        ORDER BY c.no LIMIT %s
        """,
        (limit,),
    )
    return [SeededCampaign(no, id_, spec_from_json(spec), digests) for no, id_, spec, digests in rows]
