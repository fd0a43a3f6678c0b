"""Responses about the results of campaigns."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel

from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.campaign_results import Dimension, Step
from dispatcher.domain.proportions import Verdict
from dispatcher.web.api.schemas.audiences import AudienceErrorBody


class ShareBody(BaseModel):
    """`count` of `of`, with the Wilson interval of the rate. The numbers are null where `of` is 0."""

    count: int
    of: int
    rate: float | None
    low: float | None
    high: float | None


class TallyCounts(BaseModel):
    """Recipients, or messages of one channel or domain. `attempted`: the program tried to send. `accepted` contains `delivered`,
    and that contains `read`. `opted_out`: opt-outs that came from a message of the campaign. `held_out` is the control group, which
    has an `opted_out` and a `converted` of its own. For comparison with it, `opted_out_in_window` counts all opt-outs until a week
    after the end of the campaign, as `held_out_opted_out` does.
    """

    recipients: int
    held_out: int
    refused: int
    attempted: int
    accepted: int
    delivered: int
    read: int
    failed: int
    complained: int
    opted_out: int
    converted: int
    held_out_opted_out: int
    held_out_converted: int
    opted_out_in_window: int


class TallyBody(BaseModel):
    """Counts, and the shares of some of them by name."""

    counts: TallyCounts
    rates: dict[str, ShareBody]


class GroupBody(TallyBody):
    """The counts of one channel, language, group of companies, domain or variant."""

    name: str


class PointBody(BaseModel):
    """What happened in one interval of the series, which begins at `at`. What is missing is zero."""

    at: AwareDatetime
    accepted: int = 0
    delivered: int = 0
    read: int = 0
    failed: int = 0
    refused: int = 0
    complained: int = 0
    opted_out: int = 0


class ComparisonBody(BaseModel):
    """Variants compared by `converted`, or by `read` while no conversion is known. `winner` is null while no variant is better than
    all others; `confidence` is that of each comparison of two, after Bonferroni's correction.
    """

    measure: str
    winner: str | None
    confidence: float
    shares: dict[str, ShareBody]


class LiftBody(BaseModel):
    """One outcome of the recipients to whom the campaign tried to send, and of the control group. `difference` is the first rate
    minus the second, with Newcombe's interval; `relative` is the difference as a share of the control group's rate.
    """

    outcome: str
    treated: ShareBody
    control: ShareBody
    difference: float | None
    low: float | None
    high: float | None
    relative: float | None
    verdict: Verdict | None


class CampaignResultsBody(BaseModel):
    """The results of a campaign at `counted_at`. `groups` is empty without `by`, `lifts` without a control group."""

    id: str
    state: CampaignState
    counted_at: AwareDatetime
    confidence: float
    audience: int
    total: TallyBody
    step: Step
    series: list[PointBody]
    by: Dimension | None
    groups: list[GroupBody]
    variants: ComparisonBody | None
    lifts: list[LiftBody]


class ConversionsRecorded(BaseModel):
    """What became of the rows; each is in one count. `known` ones were recorded before, or are twice in the call."""

    new: int
    known: int
    before_start: int
    not_in_audience: int
    invalid: int
    faults: list[AudienceErrorBody]
