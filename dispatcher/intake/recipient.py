"""The form of one recipient: plain data becomes a `Recipient` in normal form, or an error that names the field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeAlias
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
)

from dispatcher.domain import addresses
from dispatcher.domain.canaries import not_reserved
from dispatcher.domain.notation import placeholder
from dispatcher.domain.preferences import changes
from dispatcher.domain.recipient import Device
from dispatcher.domain.spelling import did_you_mean
from dispatcher.ledger.consent.recipients import Recipient
from dispatcher.policy.contracts import unknown_version

BIRTH_YEAR_MIN = 1890
CONTRACT_VERSION = (
    "the version of the contract that the tailored choices accept, as the customer saw it. Without it, the record does not say "
    "which version was accepted: where the policy requires an acceptance of the version in force, such a choice is not enough"
)
IDENTITY = "identity"  # the data category of names: an absent one must not be written as "null"


class BadRecipient(ValueError):
    """An invalid recipient: which field, and why. Neither contains a value, which may be personal data."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


# -- the form ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


def _timezone(name: str) -> str:
    if name not in _timezones():
        raise ValueError("unknown time zone" + did_you_mean(name, _timezones()))
    return name


def _day(text: object) -> date:
    try:
        day = date.fromisoformat(text) if isinstance(text, str) and len(text) == 10 else None
    except ValueError:
        day = None
    if day is None or day.year < BIRTH_YEAR_MIN:
        raise ValueError("is not a date such as 1980-01-31")
    return day


def _moment(text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment.year < BIRTH_YEAR_MIN:
        raise ValueError("is not a moment with its zone, such as 2026-11-23T09:00:00+01:00")
    return moment


Identifier: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")]
Identifiers: TypeAlias = Annotated[list[Identifier], Field(max_length=100)]


def _phone(text: str, info: ValidationInfo) -> str:
    return addresses.mobile_phone(text, (info.context or {}).get("region"))


def _whatsapp(text: str, info: ValidationInfo) -> str:
    return addresses.phone(text, (info.context or {}).get("region"))


Mode: TypeAlias = Literal["tailored", "standard", "none"]
Value: TypeAlias = Annotated[str, StringConstraints(max_length=4_000)] | bool | int | float | None
Variables: TypeAlias = Annotated[dict[Identifier, Value], Field(max_length=500)]


class _StrictBlock(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Device(_StrictBlock):
    token: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,4096}$")]
    platform: Literal["android", "ios", "web"]
    permission: bool


class OffersBlock(_StrictBlock):
    """A choice per offer type."""

    own: Mode | None = None
    partner: Mode | None = None
    kate: Mode | None = None


class ChannelsBlock(_StrictBlock):
    """A switch per channel group."""

    email: bool | None = None
    push: bool | None = None
    sms_whatsapp: bool | None = None


class RecipientForm(_StrictBlock):
    """A recipient as in files and in the API."""

    id: Annotated[Identifier, AfterValidator(not_reserved)]
    person: Literal["customer", "former", "platform_user", "prospect"]
    language: Literal["nl", "fr", "de", "en"]
    timezone: Annotated[str, AfterValidator(_timezone)] | None = None
    birth_date: Annotated[date, BeforeValidator(_day)] | None = None
    entities: Identifiers = []
    has_current_account: bool = False
    email: Annotated[str, AfterValidator(addresses.email)] | None = None
    phone: Annotated[str, AfterValidator(_phone)] | None = None  # for SMS
    whatsapp: Annotated[str, AfterValidator(_whatsapp)] | None = None
    push: Annotated[list[_Device], Field(max_length=50)] = []
    partner: Identifier | None = None
    purchased: Identifiers = []
    offers: OffersBlock | None = None
    channels: ChannelsBlock | None = None
    object_marketing: bool | None = None
    object_profiling: bool | None = None
    profile: Annotated[dict[Identifier, Variables], Field(max_length=50)] = {}
    said_at: Annotated[datetime, BeforeValidator(_moment)] | None = None
    contract_version: Annotated[str, Field(description=CONTRACT_VERSION)] | None = None


def parse(data: Mapping[str, Any], now: datetime, region: str | None = None, contract_versions: Collection[str] = ()) -> Recipient:
    """One recipient from plain data, with the fields of docs/reference/files.md. Raises `BadRecipient`.

    `said_at` is when the choices in it were made. National telephone numbers are those of the `region`; without one, refused.
    `contract_versions` are those that a row may name; without any, it may name each.
    """
    try:
        row = RecipientForm.model_validate(data, context={"region": region})
    except ValidationError as error:
        raise _first_error(error) from None
    for name, value in row.profile.get(IDENTITY, {}).items():
        if reason := placeholder(value):
            raise BadRecipient(f"profile.{IDENTITY}.{name}", reason)
    if row.birth_date and row.birth_date > now.date():
        raise BadRecipient("birth_date", "lies in the future")
    if row.said_at and row.said_at > now:
        raise BadRecipient("said_at", "lies in the future")
    if row.contract_version and contract_versions and row.contract_version not in contract_versions:
        raise BadRecipient("contract_version", unknown_version(row.contract_version, contract_versions))
    if row.partner == row.id:
        raise BadRecipient("partner", "is the recipient itself")
    return _recipient(row)


def _recipient(row: RecipientForm) -> Recipient:
    devices = {device.token: Device(device.token, device.platform, device.permission) for device in row.push}
    return Recipient(
        id=row.id,
        person=row.person,
        language=row.language,
        timezone=row.timezone,
        birth_date=row.birth_date,
        entities=tuple(sorted(set(row.entities))),
        has_current_account=row.has_current_account,
        email=row.email,
        phone=row.phone,
        whatsapp=row.whatsapp,
        devices=tuple(devices.values()),
        partner_id=row.partner,
        purchased=tuple(sorted(set(row.purchased))),
        profile=row.profile,
        changes=changes(_given(row.offers), _given(row.channels), row.object_marketing, row.object_profiling),
        said_at=row.said_at,
        contract_version=row.contract_version or "",
    )


def _given(block: BaseModel | None) -> dict[str, Any]:
    return {name: value for name, value in vars(block).items() if value is not None} if block else {}


_PARTS: Mapping[str, type[_StrictBlock]] = {"offers": OffersBlock, "channels": ChannelsBlock, "push": _Device}
_REASONS = {
    "missing": "is missing",
    "string_pattern_mismatch": "has characters, or a length, that are not taken here",
    "model_type": "should be an object",
    "model_attributes_type": "should be an object",
}


def _first_error(error: ValidationError) -> BadRecipient:
    first = error.errors(include_url=False, include_input=False)[0]
    place = [str(step) for step in first["loc"]]
    if place and place[0] == "profile":
        place = place[:3]  # pydantic adds the names of the types that it tried
    kind = first["type"]
    if kind == "extra_forbidden":
        reason = "unknown field" + did_you_mean(place[-1], (_PARTS[place[0]] if len(place) > 1 else RecipientForm).model_fields)
    elif kind == "value_error":
        reason = str(first["ctx"]["error"])
    else:
        reason = _REASONS.get(kind) or first["msg"].replace("Input should be", "should be")
    return BadRecipient(".".join(place), reason)
