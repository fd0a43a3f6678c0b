"""Responses about templates, their approvals and test sends."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel

from channels.base import Channel
from dispatcher.campaigns.template_approval import ApprovalStatus
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import Kind, Mode, OfferType


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
