"""The API's responses. FastAPI validates each response against these, so the OpenAPI document stays true."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from channels.base import Channel
from dispatcher.campaigns.template_approval import ApprovalStatus
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import Kind, Mode, OfferType, State
from dispatcher.domain.recipient import ChannelGroup, Language


class AudienceErrorBody(BaseModel):
    """A row of an audience that could not be read."""

    line: int
    field: str
    message: str


class CampaignAccepted(BaseModel):
    """A campaign that is completely in the ledger, unless it is `loading`: then `audience` counts the rows so far.

    `faults` has the first rows that could not be read.
    """

    id: str
    audience: int
    invalid: int
    loading: bool
    faults: list[AudienceErrorBody]


class SmsCostBody(BaseModel):
    """What the text messages would cost by the policy's prices. `unpriced` has the segments by country that have no price."""

    currency: str
    total: float
    unpriced: dict[str, int]


class DryRunBody(BaseModel):
    """What a campaign would do. `states` adds up to `audience`: `sendable`, or the state in which the others would end.

    `reasons` counts recipients by reason code, `channels` and `variants` messages, `sms` text messages by their length, and
    `segments` their segments by country. `needs` says what people have to do before it can start. Nothing was sent or kept.
    """

    id: str
    state: Literal["dry_run"]
    audience: int
    invalid: int
    states: dict[str, int]
    reasons: dict[str, int]
    channels: dict[Channel, int]
    variants: dict[str, int]
    sms: dict[str, int]
    segments: dict[str, int]
    cost: SmsCostBody | None
    needs: list[str]


class UploadBody(BaseModel):
    """An uploaded audience. Until it is `complete`, the next part starts at the byte `received`.

    `sha256` is that of the bytes as they were sent; `size` counts the unpacked ones.
    """

    id: str
    format: str
    gzip: bool
    complete: bool
    received: int
    total: int | None
    sha256: str | None
    size: int | None
    changed_at: AwareDatetime | None


class UploadList(BaseModel):
    """All uploaded audiences, by id."""

    audiences: list[UploadBody]


class CampaignSummary(BaseModel):
    """A campaign in a list."""

    id: str
    state: CampaignState
    template: str
    audience: int
    invalid: int
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


class CampaignList(BaseModel):
    """The newest campaigns, newest first."""

    campaigns: list[CampaignSummary]


class CampaignEditBody(BaseModel):
    """One edit of a campaign: each option with its value before and after."""

    version: int
    at: AwareDatetime
    by: str
    changes: dict[str, list[Any]]


class CampaignBody(BaseModel):
    """A campaign and the states of its audience; `balance` adds up to `audience`."""

    id: str
    state: CampaignState
    template: str
    entity: str
    audience: int
    invalid: int
    balance: dict[State, int]
    reasons: dict[str, int]
    channels: dict[Channel, dict[State, int]]
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    messages_per_second: float | None
    variants: dict[str, dict[State, int]]
    submitted_by: str
    released_by: str | None
    note: str
    loading: bool  # its audience is not complete yet: `audience` counts the rows so far, and nothing is sent
    send_at: AwareDatetime | None
    expires_at: AwareDatetime | None
    rate_per_second: float | None
    priority: int
    version: int  # the number of its edits, and its ETag
    edits: list[CampaignEditBody]


class RowsAdded(BaseModel):
    """How many rows were added to a campaign; `faults` has the first that could not be read. `audience` counts all its rows."""

    id: str
    state: CampaignState
    audience: int
    added: int
    invalid: int
    faults: list[AudienceErrorBody]


class CampaignStateBody(BaseModel):
    """A campaign's state after a release, pause, resume or cancel."""

    id: str
    state: CampaignState


class MessageAccepted(BaseModel):
    """A message that will be decided and, if it is allowed, sent."""

    id: str


class DeliveryReportBody(BaseModel):
    """A provider's report about a message."""

    provider: str
    kind: str
    code: str | None
    at: AwareDatetime
    extra: dict[str, str]  # fields that no rule uses; kept for a short time


class MessageBody(BaseModel):
    """A message: its state, and the decision behind it as the ledger stores it."""

    id: str
    campaign: str | None
    recipient: str
    template: str
    channel: Channel | None
    state: State
    reason: str | None
    until: AwareDatetime | None
    attempts: int
    provider: str | None
    receipt: str | None
    claimed_at: AwareDatetime | None
    accepted_at: AwareDatetime | None
    updated_at: AwareDatetime | None
    decision: dict[str, Any]
    events: list[DeliveryReportBody]


class MessageLine(BaseModel):
    """A message in a list. A job that is not decided yet is `pending`, without a time."""

    id: str
    campaign: str | None
    recipient: str
    channel: Channel | None
    state: State
    reason: str | None
    attempts: int
    updated_at: AwareDatetime | None


class MessageList(BaseModel):
    """A page of messages, newest first; perhaps with fewer than `limit`. `next` is the next page's cursor, null at the end."""

    messages: list[MessageLine]
    next: str | None


class ExplanationBody(BaseModel):
    """Why a message was sent or not: sentences by subject, and `text`, which is all of them."""

    id: str
    recipient: str
    state: State
    reason: str | None
    language: Language
    at: AwareDatetime | None
    what: list[str]
    why: list[str]
    data: list[str]
    change: list[str]
    who: list[str]
    contact: list[str]
    text: str


class ApprovalBody(BaseModel):
    """An approval of a template version or, with `approved` false, its withdrawal."""

    no: int
    approved: bool
    actor: str
    first_actor: str | None
    comment: str
    at: AwareDatetime


class FirstApprovalBody(BaseModel):
    """An approval by the first of two people: it waits for the second."""

    actor: str
    comment: str
    at: AwareDatetime


class TemplateBody(BaseModel):
    """A template as it now is. `approval` is the newest approval or withdrawal of this digest."""

    name: str
    version: str
    author: str
    digest: str
    kind: Kind
    offer_type: OfferType | None
    topic: str | None
    modes: list[Mode]
    channels: list[Channel]
    standing: ApprovalStatus
    approval: ApprovalBody | None
    first_approval: FirstApprovalBody | None


class VersionUseBody(BaseModel):
    """A campaign that names a version."""

    id: str
    state: CampaignState
    created_at: AwareDatetime


class KnownVersionBody(BaseModel):
    """A version of a template. `is_present`: the one in the folder. Approvals and withdrawals are listed newest first."""

    digest: str
    is_present: bool
    stored_at: AwareDatetime | None
    first_approval: FirstApprovalBody | None
    approvals: list[ApprovalBody]
    campaigns: list[VersionUseBody]


class TemplateHistory(BaseModel):
    """All versions of a template, newest first."""

    versions: list[KnownVersionBody]


class WordChangeBody(BaseModel):
    """A piece of a text."""

    kind: Literal["same", "removed", "added"]
    text: str


class TextDiffBody(BaseModel):
    """A text that differs. `data` says which values it was rendered with; "" for the examples."""

    language: str
    channel: Channel
    mode: Mode
    part: str
    data: str
    changes: list[WordChangeBody]


class TemplateDiff(BaseModel):
    """The texts that differ."""

    differences: list[TextDiffBody]


class TemplateList(BaseModel):
    """All templates."""

    templates: list[TemplateBody]


class TesterSendBody(BaseModel):
    """A test send. `state` is accepted, failed or uncertain, and later what the provider reports."""

    no: int
    template: str
    digest: str
    tester: str
    channel: Channel
    language: str
    mode: Mode
    by: str
    at: AwareDatetime
    state: str
    code: str | None
    provider: str | None
    receipt: str | None


class TesterSendList(BaseModel):
    """The newest test sends of a template."""

    tests: list[TesterSendBody]


class RecipientResult(BaseModel):
    """The result of putting a recipient: `outcome` is new, changed or unchanged."""

    id: str
    outcome: str
    version: int


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


class ChoiceBody(BaseModel):
    """A choice and its proof: the consent event that set it."""

    value: str
    event: str
    source: str
    at: AwareDatetime


class PreferencesBody(BaseModel):
    """A person's choices; one never made is null. `version` is the ETag for `If-Match`."""

    recipient: str
    version: int
    offers: dict[OfferType, Mode | None]
    channels: dict[ChannelGroup, bool | None]
    object_marketing: bool
    object_profiling: bool
    choices: dict[str, ChoiceBody]


class PreferencesResult(PreferencesBody):
    """The choices after a change; `outranked` names what was not recorded, because the person chose otherwise later."""

    outranked: list[str]


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


class EndpointRange(BaseModel):
    """Events by number, from the first to the last, that are dead or are delivered again. `error` is that of the last attempt."""

    number: int
    from_: int = Field(alias="from")
    to: int
    attempts: int
    error: str | None
    since: AwareDatetime


class EndpointBody(BaseModel):
    """An endpoint that events are delivered to. `cursor` is the last event that is done; `dead` could not be delivered."""

    id: str
    url: str
    state: Literal["active", "disabled"]
    disabled_reason: str | None
    types: list[str]
    entities: list[str]
    campaigns: list[str]
    batch_max: int
    cursor: int
    lag_events: int
    lag_seconds: float
    attempts: int
    error: str | None
    failing_since: AwareDatetime | None
    next_try_at: AwareDatetime | None
    delivered_at: AwareDatetime | None
    secret_version: int
    old_secret_until: AwareDatetime | None
    created_by: str
    created_at: AwareDatetime
    replays: list[EndpointRange]
    dead: list[EndpointRange]


class EndpointAdded(EndpointBody):
    """A new endpoint, and the secret that its receiver needs."""

    secret: str


class EndpointList(BaseModel):
    """All endpoints."""

    endpoints: list[EndpointBody]


class EndpointTest(BaseModel):
    """What a receiver answered to a test event; `error` is null for a status of 2xx, `status` is null without an answer."""

    webhook_id: str
    status: int | None
    error: str | None
    milliseconds: int


class EndpointSecret(BaseModel):
    """The newest secret of an endpoint."""

    id: str
    secret: str


class SuppressionBody(BaseModel):
    """A suppression. `hash` stands for the address; `since` is when it was suppressed here or at the provider of the list."""

    no: int
    channel: Channel
    hash: str
    reason: str
    source: str
    since: AwareDatetime
    created_at: AwareDatetime
    created_by: str | None
    lifted_at: AwareDatetime | None
    lifted_by: str | None
    lifted_because: str | None


class SuppressionPage(BaseModel):
    """Suppressions."""

    suppressions: list[SuppressionBody]


class SuppressionFault(BaseModel):
    """A row of a list that is rejected, or of which a part could not be read."""

    line: int
    field: str
    message: str


class SuppressionImportBody(BaseModel):
    """What an import did, or would do. Rows are `taken`, `ignored` or `rejected`; addresses are `suppressed` now, were
    `suppressed_before`, or were `lifted_later` than the date in the list.
    """

    dry_run: bool
    taken: int
    ignored: int
    rejected: int
    suppressed: int
    suppressed_before: int
    lifted_later: int
    opt_outs_recorded: int
    messages_refused: int
    faults: list[SuppressionFault]
