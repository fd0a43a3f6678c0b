"""The catalogue: every event that the outside can hear of, as a CloudEvent 1.0, and the schema of its data.

Events carry ids and codes. They never carry an address, a name, a variable, a text, or who in the bank did something. So an erasure
leaves nothing of a person in them but the id, which decisions keep too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from channels.base import Channel
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import INTERNAL_STATES, Kind, OfferType, State

PREFIX = "dispatcher"
SEQUENCE_DIGITS = 20  # of the extension attribute `sequence`, which consumers compare as text
MODEL = ConfigDict(extra="forbid", frozen=True)

RecipientId = Annotated[str, Field(description="the recipient's id")]


class EventFamily(StrEnum):
    """What an event is about. Its type is `dispatcher.<kind>.<what happened>`."""

    MESSAGE = "message"
    CONSENT = "consent"
    SUPPRESSION = "suppression"
    INBOUND = "inbound"
    CAMPAIGN = "campaign"
    BALANCE = "balance"
    TEMPLATE = "template"
    RECIPIENT = "recipient"


class MessageData(BaseModel):
    """A message reached a state, or the decision was not to send it. The last part of the event's type is the state."""

    model_config = MODEL
    message: str = Field(description="the message's id: period, chunk, row, leg")
    recipient: RecipientId
    campaign: str | None = Field(description="the campaign's id; null for a trigger")
    trigger: str | None = Field(description="the key of the trigger; null for a campaign")
    state: State = Field(description="the state; never pending or claimed, which are on the way to another")
    reason: str | None = Field(description="why: a reason code of ours, or the provider's code")
    channel: Channel | None = Field(description="the channel; null where none was chosen")
    provider: str | None = Field(description="the provider that had the message last")
    attempts: int = Field(description="attempts so far, as far as they count", ge=0)
    entity: str = Field(description="in whose name it is sent")
    kind: Kind = Field(description="commercial or service")
    offer_type: OfferType | None = Field(description="the kind of offer; null for service messages")
    template: str | None = Field(description="the template; null where the variant was not decided")
    variant: str | None = Field(description="the variant of an A/B test; null without one")
    tags: list[str] = Field(default=[], description="the labels of the campaign or trigger; in files separated by |")
    cost_centre: str | None = Field(default=None, description="the cost centre of the campaign or trigger")


class ConsentData(BaseModel):
    """A choice was recorded: an opt-out, an opt-in, a contract, an objection."""

    model_config = MODEL
    recipient: RecipientId
    subject: str = Field(description="what the choice is about: offer:own, channel:email, objection:marketing …")
    old_value: str | None = Field(description="the choice before; null where there was none")
    new_value: str = Field(description="the choice now")
    source: str = Field(description="where it was made: mobile, touch, live, branch, link, provider, import …")
    said_at: datetime = Field(description="when the person said it")
    evidence: str = Field(description="the id of the consent event; reasons and exports name it too")
    number: int = Field(description="the number of the choice in this person's chain, from 1", ge=1)


class SuppressionData(BaseModel):
    """An address was banned on a channel, or the ban was lifted."""

    model_config = MODEL
    suppression: str = Field(description="the id of the suppression")
    channel: Channel
    reason: str = Field(description="why: a reason code")
    source: str = Field(description="who reported it: a provider, or a part of this program")
    recipients: list[str] = Field(description="the ids of all who had the address at this moment")


class InboundData(BaseModel):
    """An SMS or WhatsApp message came in. Its text is never in an event."""

    model_config = MODEL
    inbound: str = Field(description="the provider's id of the message")
    channel: Channel
    meaning: str = Field(description="how it was read: stop, start, help, unclear …")
    recipients: list[str] = Field(description="the ids of all who may have sent it")


class CampaignData(BaseModel):
    """A campaign is complete in the ledger, or changed its state. The last part of the event's type is the state."""

    model_config = MODEL
    campaign: str = Field(description="the campaign's id")
    state: CampaignState
    previous_state: CampaignState | None = Field(description="the state before; null for a new campaign")
    entity: str
    audience: int = Field(description="the rows of its audience: each ends in one state of its messages", ge=0)
    invalid: int = Field(description="the rows that could not be read", ge=0)
    templates: list[str] = Field(description="the template, or those of all variants")
    tags: list[str] = Field(default=[], description="the labels of the campaign")
    cost_centre: str | None = Field(default=None, description="its cost centre")


class BalanceData(BaseModel):
    """The states of a campaign's audience were counted: at each change of the campaign's own state, and once a minute at most while
    its messages change.

    The count is a snapshot of the ledger at the event's time. Message events that are published after it may already be in it.
    """

    model_config = MODEL
    campaign: str = Field(description="the campaign's id")
    state: CampaignState = Field(description="the campaign's state at that moment")
    entity: str
    audience: int = Field(description="the rows of its audience", ge=0)
    invalid: int = Field(description="the rows that could not be read", ge=0)
    states: dict[State, int] = Field(description="recipients by state, every state; adds up to the audience")
    reasons: dict[str, int] = Field(description="recipients by reason code, where their state has one")
    channels: dict[Channel, dict[State, int]] = Field(description="messages by channel and state; a recipient can have several")
    variants: dict[str, dict[State, int]] = Field(description="messages by variant of an A/B test and state")


class TemplateData(BaseModel):
    """A template version was approved, or its approval was withdrawn."""

    model_config = MODEL
    template: str
    version: str = Field(description="as the template declares it")
    digest: str = Field(description="identifies exactly this wording")
    approval: int = Field(description="the number of the approval or withdrawal")


class RecipientData(BaseModel):
    """A person was erased."""

    model_config = MODEL
    recipient: RecipientId


DATA: Mapping[EventFamily, type[BaseModel]] = {
    EventFamily.MESSAGE: MessageData,
    EventFamily.CONSENT: ConsentData,
    EventFamily.SUPPRESSION: SuppressionData,
    EventFamily.INBOUND: InboundData,
    EventFamily.CAMPAIGN: CampaignData,
    EventFamily.BALANCE: BalanceData,
    EventFamily.TEMPLATE: TemplateData,
    EventFamily.RECIPIENT: RecipientData,
}
# What can happen, by kind: the last part of the types.
TYPES: Mapping[EventFamily, tuple[str, ...]] = {
    EventFamily.MESSAGE: tuple(str(state) for state in State if state not in INTERNAL_STATES),
    EventFamily.CONSENT: ("changed",),
    EventFamily.SUPPRESSION: ("set", "lifted"),
    EventFamily.INBOUND: ("received",),
    EventFamily.CAMPAIGN: tuple(str(state) for state in CampaignState),
    EventFamily.BALANCE: ("counted",),
    EventFamily.TEMPLATE: ("approved", "withdrawn"),
    EventFamily.RECIPIENT: ("erased",),
}
ALL_TYPES = tuple(f"{PREFIX}.{kind}.{what}" for kind, names in TYPES.items() for what in names)


def schema_path(kind: EventFamily) -> str:
    """Where the schema of this kind's data is served. A change that is not an addition gets a new version."""
    return f"/v1/events/schemas/{kind}.v1.json"


def schema_of(kind: EventFamily) -> dict[str, Any]:
    """The JSON schema (2020-12) of this kind's data."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **DATA[kind].model_json_schema()}


def asyncapi(server: str) -> dict[str, Any]:
    """The catalogue as an AsyncAPI 3.0 document; `server` is our public URL."""
    messages = {kind: {"name": f"{PREFIX}.{kind}", "payload": _payload(kind)} for kind in EventFamily}
    references = {kind: {"$ref": f"#/components/messages/{kind}"} for kind in EventFamily}
    host = server.partition("://")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Dispatcher events",
            "version": "1",
            "description": "CloudEvents 1.0, oldest first, numbered without gaps.",
        },
        "defaultContentType": "application/cloudevents+json",
        "servers": {"feed": {"host": host[2].partition("/")[0], "protocol": host[0]}},
        "channels": {"events": {"address": "/v1/events", "messages": references}},
        "operations": {"readEvents": {"action": "send", "channel": {"$ref": "#/channels/events"}}},
        "components": {"messages": messages},
    }


def _payload(kind: EventFamily) -> dict[str, Any]:
    text = {"type": "string"}
    attributes = ("id", "sequence", "source", "subject", "partitionkey", "time", "dataschema")
    return {
        "type": "object",
        "required": ["specversion", "type", *attributes, "datacontenttype", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "type": {"enum": [f"{PREFIX}.{kind}.{what}" for what in TYPES[kind]]},
            **dict.fromkeys(attributes, text),
            "traceparent": text,
            "datacontenttype": {"const": "application/json"},
            "data": schema_of(kind),
        },
    }


@dataclass(frozen=True, slots=True)
class Happened:
    """A change that is to be published: the last part of its type, what it is about, when, and its data with sorted names."""

    what: str
    subject: str
    time: str
    data: Mapping[str, Any]
    trace: str | None = None  # a `traceparent`


def line(number: int, source: str, kind: EventFamily, happened: Happened) -> bytes:
    """An event as the stream keeps it: canonical JSON in one line, its names sorted, without blanks. `source` is our public URL.

    `traceparent` is CloudEvents' extension for distributed tracing; only where traces are on.
    """
    sequence = f"{number:0{SEQUENCE_DIGITS}d}"
    return to_json(
        {
            "data": happened.data,
            "datacontenttype": "application/json",
            "dataschema": source + schema_path(kind),
            "id": sequence,
            "partitionkey": happened.subject,
            "sequence": sequence,
            "source": source,
            "specversion": "1.0",
            "subject": happened.subject,
            "time": happened.time,
            **({"traceparent": happened.trace} if happened.trace else {}),
            "type": f"{PREFIX}.{kind}.{happened.what}",
        }
    )
