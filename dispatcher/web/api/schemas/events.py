"""The feed of events."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel


class EventBody(BaseModel):
    """An event by CloudEvents 1.0. `data` has the schema that `dataschema` names."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    time: AwareDatetime
    sequence: str
    partitionkey: str
    datacontenttype: Literal["application/json"]
    dataschema: str
    data: dict[str, Any]


class EventPage(BaseModel):
    """Events in the order of their numbers. `more`: whether there are more by now; the hashes are null where types were chosen."""

    events: list[EventBody]
    next: int
    more: bool
    previous_hash: str | None
    hash: str | None
