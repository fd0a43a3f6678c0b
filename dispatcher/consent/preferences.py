"""A person's choices: show them, show their history, record new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.consent.acknowledgement import Publish, acknowledge, is_opt_out, publish_acknowledgements
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import BadChoice, Change
from dispatcher.domain.recipient import Choice
from dispatcher.intake.campaign import ValidationContext
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events, line_uploads
from dispatcher.ledger.consent.events import ConsentEvent, ConsentStatement, Preferences, Provenance, RecordResult
from dispatcher.ledger.consent.line_uploads import LineUpload
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.runtime.services import Services

__all__ = ["ConsentEvent", "PreferenceChange", "PreferenceHistory", "Preferences", "RecordResult", "as_of", "history", "is_opt_out"]
__all__ += ["record", "show", "show_with_history"]


@dataclass(frozen=True, slots=True)
class PreferenceChange:
    """What one person said, where, and to whom.

    `wording` is the version of the text that the person saw. `said_at` None stands for now. With `expected_version`, the change is
    recorded only if the recipient still has that version. `entity` is the company in whose name an opt-out is acknowledged.
    `contract_version` is the version of the contract that a choice of "tailored" accepts; "" where it is not known. `message` is
    the message whose link led to the choice, if any.
    """

    recipient_id: str
    changes: Sequence[Change]
    source: str
    actor: str
    wording: str = ""
    said_at: datetime | None = None
    expected_version: int | None = None
    entity: str | None = None
    contract_version: str = ""
    message: MessageId | None = None


@dataclass(frozen=True, slots=True)
class PreferenceHistory:
    """A person's present choices, and every recorded one, oldest first."""

    preferences: Preferences
    events: Sequence[ConsentEvent]


@dataclass(frozen=True, slots=True)
class UploadStep:
    """The last line that an upload took, and the hashes of the lines after it by number; the change is in the last of them."""

    upload: LineUpload
    taken: int
    hashes: Mapping[int, int]


class LineTaken(Exception):
    """Another call took the line, or a later one."""


def record(services: Services, publish: Publish, change: PreferenceChange, step: UploadStep | None = None) -> RecordResult:
    """Record what a person said, and acknowledge an opt-out.

    Raises `UnknownRecipient`, `BadChoice` for a time in the future or an unknown contract version, `VersionConflict`, `LineTaken`,
    and `LedgerUnavailable`; then nothing is recorded and nothing acknowledged.
    """
    now = services.clock()
    if change.contract_version and (reason := services.contracts.unknown(change.contract_version)):
        raise BadChoice("contract_version", reason)
    with lend(services.pool) as connection:
        ensure_period(connection, period_of(now))  # before the recipient's row is locked: new partitions lock whole tables
        with connection.transaction():
            if step and not line_uploads.advance(connection, step.upload, step.taken, step.hashes, now):
                raise LineTaken
            recorded = events.record(
                connection,
                services.secret,
                ConsentStatement(
                    change.recipient_id, tuple(change.changes), change.said_at or now, change.contract_version, change.message
                ),
                Provenance(change.source, change.actor, change.wording),
                now,
                change.expected_version,
            )
            context = ValidationContext(services.catalog, services.policy, now)
            due = acknowledge(connection, context, change.recipient_id, recorded.events, change.entity)
    publish_acknowledgements(publish, due)
    return recorded


def show(services: Services, recipient_id: str) -> Preferences:
    """A person's choices now. Raises `UnknownRecipient`."""
    with lend(services.pool) as connection:
        return events.preferences(connection, recipient_id)


def as_of(services: Services, recipient_id: str, moment: datetime) -> Mapping[str, Choice]:
    """The choices that were on record at a moment, by subject. Raises `UnknownRecipient`."""
    with lend(services.pool) as connection:
        events.preferences(connection, recipient_id)
        return events.as_of(connection, recipient_id, moment)


def history(services: Services, recipient_id: str) -> Sequence[ConsentEvent]:
    """Every recorded choice of a person, oldest first. Raises `UnknownRecipient`."""
    return show_with_history(services, recipient_id).events


def show_with_history(services: Services, recipient_id: str) -> PreferenceHistory:
    """A person's choices now, and how they came about. Raises `UnknownRecipient`."""
    with lend(services.pool) as connection:
        return PreferenceHistory(events.preferences(connection, recipient_id), events.history(connection, recipient_id))
