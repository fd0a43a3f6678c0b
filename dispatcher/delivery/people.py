"""Single customers as employees see them: found by id, address or message, and only those of the employee's entities.

A customer of another entity is answered like an unknown one: the answer says nothing about who is a customer there. Somebody with
the rights for all entities also sees people of none, such as prospects and those who were erased.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dispatcher.consent import recipients
from dispatcher.delivery import messages
from dispatcher.domain.errors import NotAllowed, UnknownRecipient
from dispatcher.domain.masking import masked_email, masked_phone, masked_token
from dispatcher.domain.message_id import BadMessageId, MessageId
from dispatcher.domain.principal import Principal
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.intake.errors import BadInput
from dispatcher.runtime.services import Services

FOUND_MAX = 20
TEXT_LENGTH_MAX = 320


@dataclass(frozen=True, slots=True)
class CustomerDevice:
    """An installed app, with its token as it may be shown."""

    token: str
    platform: str
    permission: bool


@dataclass(frozen=True, slots=True)
class Customer:
    """A person's record, ready for a page. The addresses, by channel, are masked unless the caller asked for them."""

    id: str
    kind: str  # see `recipient.Person`
    language: Language
    version: int
    entities: tuple[str, ...]
    addresses: dict[str, str]
    devices: tuple[CustomerDevice, ...]
    suppressions: tuple[dict[str, Any], ...]
    erased_at: str | None
    is_masked: bool = True

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels with an address."""
        return (*self.addresses, *(("push",) if self.devices else ()))


def find(services: Services, principal: Principal, text: str) -> list[Customer]:
    """The customers with this id, e-mail address or telephone number, or of this message, that the principal may see."""
    text = text.replace("\0", "").strip()[:TEXT_LENGTH_MAX]
    found = []
    for recipient_id in dict.fromkeys(_ids(services, text)):
        with suppress(UnknownRecipient):
            found.append(view(services, principal, recipient_id))
        if len(found) == FOUND_MAX:
            break
    return found


def _ids(services: Services, text: str) -> Iterable[str]:
    """The ids that may be meant. A text of digits may be an id as well as a telephone number."""
    if not text:
        return
    with suppress(BadMessageId):
        message = messages.find(services, MessageId.parse(text))
        if message is not None:
            yield message.recipient_id
    if "@" not in text:
        yield text
    with suppress(BadInput):
        yield from recipients.with_address(services, text)


def view(services: Services, principal: Principal, recipient_id: str, is_masked: bool = True) -> Customer:
    """A customer. Raises `UnknownRecipient`, also for a customer of other entities only."""
    record = recipients.show(services, recipient_id)
    if not is_visible(principal, record["entities"]):
        raise UnknownRecipient(recipient_id)
    shown = {
        "email": masked_email(record["email"]) if is_masked and "email" in record else record.get("email"),
        **{
            channel: masked_phone(record[name]) if is_masked and name in record else record.get(name)
            for channel, name in (("sms", "phone"), ("whatsapp", "whatsapp"))
        },
    }
    return Customer(
        id=record["id"],
        kind=record["person"],
        language=record["language"] if record["language"] in LANGUAGES else "en",
        version=record["version"],
        entities=tuple(record["entities"]),
        addresses={channel: address for channel, address in shown.items() if address},
        devices=tuple(
            CustomerDevice(masked_token(each["token"]), each["platform"], each["permission"]) for each in record.get("push", ())
        ),
        suppressions=tuple(record["suppressions"]),
        erased_at=record.get("erased_at"),
        is_masked=is_masked,
    )


def is_visible(principal: Principal, entities: Iterable[str]) -> bool:
    """Whether the principal may see a customer of these entities."""
    return principal.entities is None or bool(principal.entities & frozenset(entities))


def may_see(services: Services, principal: Principal, recipient_id: str) -> bool:
    """Whether the principal may see this customer."""
    with suppress(UnknownRecipient):
        return principal.entities is None or bool(view(services, principal, recipient_id))
    return False


def require_visible(services: Services, principal: Principal, recipient_id: str) -> None:
    """Raise `UnknownRecipient` for a customer of other entities only, as for an unknown one."""
    if not may_see(services, principal, recipient_id):
        raise UnknownRecipient(recipient_id)


def require_all_entities(principal: Principal, customer: Customer) -> None:
    """For what concerns everything on record: raise `NotAllowed` where the principal may not see all entities of the customer."""
    if principal.entities is not None and not frozenset(customer.entities) <= principal.entities:
        raise NotAllowed("this customer is also one of another entity; somebody with the rights for all of them has to do this")


def entity_of(services: Services, principal: Principal, customer: Customer) -> str:
    """The entity in whose name the principal speaks to the customer: the first that both have, else the policy's first."""
    own = [each for each in customer.entities if principal.entities is None or each in principal.entities]
    return next((each for each in own if each in services.policy.entities), next(iter(services.policy.entities)))
