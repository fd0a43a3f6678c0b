"""Responses about recipients."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class RecipientResult(BaseModel):
    """The result of putting a recipient: `outcome` is new, changed or unchanged."""

    id: str
    outcome: str
    version: int


class ErasureWaiting(BaseModel):
    """An erasure that is requested, and waits for the approval of a second key or person."""

    id: str
    erased: Literal[False] = False
    waiting: Literal[True] = True


class RecipientIds(BaseModel):
    """The recipients who have an address."""

    ids: list[str]


class RecipientBody(BaseModel):
    """What is on record about a person. Fields without a value are left out; there are others beside these."""

    model_config = ConfigDict(extra="allow")

    id: str
    version: int
    person: str
    language: str
    entities: list[str]
    has_current_account: bool
    reachable: dict[str, bool]
