"""WhatsApp templates: the provider's id and WhatsApp's decision for each text, by account. A text without a row may not be sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from datetime import datetime
from typing import Any

from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class TextKey:
    """One WhatsApp text of an account. `digest` is that of the text and its buttons."""

    account: str
    template: str
    language: str
    mode: str
    digest: str


@dataclass(frozen=True, slots=True)
class WhatsAppText:
    """A text at the provider. `category` is the one that the template's kind demands. Only status "approved" may be sent."""

    key: TextKey
    name: str
    content_sid: str
    category: str
    status: str
    rejection_reason: str
    changed_at: datetime
    checked_at: datetime


@dataclass(frozen=True, slots=True, eq=False)
class ApprovedTexts:
    """The texts that may be sent, each with its ContentSid. Compared by identity, as part of a cache's key."""

    content_sids: Mapping[TextKey, str] = field(default_factory=dict)


NO_TEXTS = ApprovedTexts()

# For a spec `s.spec`: the sendable texts of its templates, if it uses WhatsApp.
APPROVED = """
    CASE WHEN s.spec->'channels' ? 'whatsapp' THEN
        (SELECT jsonb_agg(jsonb_build_array(w.account, w.template, w.language, w.mode, w.digest, w.content_sid))
         FROM whatsapp_templates w
         WHERE w.status = 'approved' AND (w.template = s.spec->>'template'
               OR w.template IN (SELECT v->>1 FROM jsonb_array_elements(s.spec->'variants') v)))
    END
"""

_KEY = tuple(each.name for each in fields(TextKey))
_REST = tuple(each.name for each in fields(WhatsAppText))[1:]
_COLUMNS = ", ".join((*_KEY, *_REST))


def approved_texts(rows: Sequence[Sequence[Any]] | None) -> ApprovedTexts:
    """The texts of a result of `APPROVED`."""
    return ApprovedTexts({TextKey(*row[:5]): row[5] for row in rows}) if rows else NO_TEXTS


def approved(connection: Connection, templates: Collection[str]) -> ApprovedTexts:
    """The texts of these templates that may be sent."""
    rows = connection.execute(
        f"SELECT {', '.join(_KEY)}, content_sid FROM whatsapp_templates WHERE status = 'approved' AND template = ANY (%s)",
        (list(templates),),
    )
    return approved_texts(rows.fetchall())


def find(connection: Connection, account: str) -> dict[TextKey, WhatsAppText]:
    """All texts of an account."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM whatsapp_templates WHERE account = %s", (account,))
    texts = (WhatsAppText(TextKey(*row[: len(_KEY)]), *row[len(_KEY) :]) for row in rows)
    return {text.key: text for text in texts}


def store(connection: Connection, texts: Collection[WhatsAppText]) -> None:
    """Write these texts; `changed_at` stays where nothing but the time of the check is new."""
    values = [(*astuple(text.key), *(getattr(text, name) for name in _REST)) for text in texts]
    connection.cursor().executemany(
        f"""
        INSERT INTO whatsapp_templates AS w ({_COLUMNS}) VALUES ({", ".join(["%s"] * len((*_KEY, *_REST)))})
        ON CONFLICT (account, template, language, mode, digest) DO UPDATE SET
            name = excluded.name, content_sid = excluded.content_sid, category = excluded.category, status = excluded.status,
            rejection_reason = excluded.rejection_reason, checked_at = excluded.checked_at,
            changed_at = CASE WHEN (w.content_sid, w.category, w.status, w.rejection_reason)
                IS DISTINCT FROM (excluded.content_sid, excluded.category, excluded.status, excluded.rejection_reason)
                THEN excluded.changed_at ELSE w.changed_at END
        """,
        values,
    )


def begin_push(connection: Connection, account: str, now: datetime, until: datetime) -> bool:
    """Whether this process may push texts to the account until then; False while another one does."""
    return (
        connection.execute(
            "INSERT INTO whatsapp_pushes AS p (account, until) VALUES (%s, %s)"
            " ON CONFLICT (account) DO UPDATE SET until = excluded.until WHERE p.until < %s",
            (account, until, now),
        ).rowcount
        > 0
    )


def extend_push(connection: Connection, account: str, until: datetime) -> None:
    """Go on with a push."""
    connection.execute("UPDATE whatsapp_pushes SET until = %s WHERE account = %s", (until, account))


def end_push(connection: Connection, account: str) -> None:
    """The push has ended."""
    connection.execute("DELETE FROM whatsapp_pushes WHERE account = %s", (account,))


def take_due(connection: Connection, account: str, undecided_before: datetime, decided_before: datetime, now: datetime) -> bool:
    """Whether a text of the account is due for a check; marks all as checked now, so that one process asks.

    A text on which WhatsApp decides is due where it was checked before `undecided_before`, any other before `decided_before`.
    """
    return (
        connection.execute(
            """
            UPDATE whatsapp_templates SET checked_at = %(now)s
            WHERE account = %(account)s AND EXISTS (
                SELECT FROM whatsapp_templates
                WHERE account = %(account)s AND (checked_at < %(decided)s
                      OR checked_at < %(undecided)s AND status IN ('unsubmitted', 'received', 'pending')))
            """,
            {"now": now, "account": account, "undecided": undecided_before, "decided": decided_before},
        ).rowcount
        > 0
    )
