"""Responses about the choices of a person."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel

from dispatcher.domain.message import Mode, OfferType
from dispatcher.domain.recipient import ChannelGroup


class ChoiceBody(BaseModel):
    """A choice and its proof: the consent event that set it.

    `dated` is false where an import did not say when the choice was made: `at` is then the time of the import.
    `contract_version` is the version of the contract that a tailored choice accepted; null where nobody stated it.
    """

    value: str
    event: str
    source: str
    at: AwareDatetime
    dated: bool
    contract_version: str | None


class PreferencesBody(BaseModel):
    """A person's choices; one never made is null. `version` is the ETag for `If-Match`."""

    recipient: str
    version: int
    offers: dict[OfferType, Mode | None]
    channels: dict[ChannelGroup, bool | None]
    object_marketing: bool
    object_profiling: bool
    choices: dict[str, ChoiceBody]


LineOutcome = Literal["recorded", "unchanged", "outranked", "unknown", "conflict", "rejected", "repeated"]


class PreferencesLineResult(BaseModel):
    """What became of a line. `version` is the person's version after it, null where nothing was recorded.

    A `repeated` line was applied before, by the same upload.
    """

    line: int
    recipient: str | None
    outcome: LineOutcome
    version: int | None = None
    field: str = ""
    message: str = ""


class PreferencesResult(PreferencesBody):
    """The choices after a change; `outranked` names what was not recorded, because the person chose otherwise later."""

    outranked: list[str]
