"""Recipients: import many, add or replace one, show and export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from channels.base import Channel
from dispatcher.domain import addresses
from dispatcher.domain.addresses import InvalidAddress
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.recipient_import import ImportRequest, ImportResult, import_file
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import address_keys, events, recipients
from dispatcher.ledger.consent.recipients import Recipient
from dispatcher.runtime.services import Services

__all__ = ["ImportResult", "PutResult", "PutStatus", "Recipient", "export", "import_recipients", "put"]
__all__ += ["show", "show_part", "with_address"]


class PutStatus(StrEnum):
    """The result of adding or replacing a recipient."""

    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    ERASED = "erased"  # erased before, and not changed: only data that is newer than the erasure restores the person


@dataclass(frozen=True, slots=True)
class PutResult:
    """The result of adding or replacing a recipient, and the recipient's version now."""

    status: PutStatus
    version: int


def import_recipients(
    services: Services, path: Path, rejects: Path, actor: str, progress: Callable[[int], None] | None = None
) -> ImportResult:
    """Import a file of recipients; bad rows go to the file `rejects`. Raises `BadInput` where the file cannot be read."""
    with lend(services.pool) as connection:
        request = ImportRequest(path, rejects, actor, services.clock(), services.policy.files)
        return import_file(connection, services.secret, request, progress)


def put(services: Services, recipient: Recipient, actor: str) -> PutResult:
    """Add a recipient, or replace what was known of them."""
    with lend(services.pool) as connection:
        result = recipients.upsert(connection, services.secret, [recipient], actor, services.clock())
        version = events.preferences(connection, recipient.id).version
    if result.erased:
        return PutResult(PutStatus.ERASED, version)
    return PutResult(PutStatus.NEW if result.new else PutStatus.CHANGED if result.changed else PutStatus.UNCHANGED, version)


def show(services: Services, recipient_id: str) -> dict[str, Any]:
    """Everything on record about one person, ready for JSON. Raises `UnknownRecipient`."""
    with lend(services.pool) as connection:
        return recipients.show(connection, recipient_id)


ADDRESSES = ("email", "phone", "whatsapp", "push")


def show_part(services: Services, recipient_id: str, parts: frozenset[str]) -> dict[str, Any]:
    """As `show`, with the addresses and the profile only where `parts` names them, and with the channels that have an address.

    Raises `UnknownRecipient`.
    """
    record = show(services, recipient_id)
    record["reachable"] = {"sms" if name == "phone" else name: bool(record.get(name)) for name in ADDRESSES}
    left_out = (() if "addresses" in parts else ADDRESSES) + (() if "profile" in parts else ("profile",))
    return {name: value for name, value in record.items() if name not in left_out}


def with_address(services: Services, text: str) -> list[str]:
    """The ids of all who have an e-mail address, or a telephone number on any channel. Raises `BadInput` for another text."""
    region = services.policy.files.default_region
    try:
        kind, address = ("email", addresses.email(text)) if "@" in text else ("sms", addresses.phone(text, region))
    except InvalidAddress as error:
        raise BadInput(InputError("search", 0, "address", str(error))) from None
    with lend(services.pool) as connection, connection.transaction():
        key = address_keys.in_use(connection, services.secret, [(kind, address)])[kind, address]
        return recipients.with_address(connection, Channel(kind), key)


def export(services: Services, recipient_id: str) -> dict[str, Any]:
    """As `show`, with consent history, messages, jobs and inbound messages. Raises `UnknownRecipient`."""
    with lend(services.pool) as connection:
        return recipients.export(connection, recipient_id)
