"""Responses about suppressions."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel

from channels.base import Channel


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
    """What an import did, or would do. Rows are `taken`, `ignored` or `rejected`, and `reasons` counts those taken; addresses are
    `suppressed` now, were `suppressed_before`, or were `lifted_later` than the date in the list.
    """

    dry_run: bool
    format: str
    reasons: dict[str, int]
    taken: int
    ignored: int
    rejected: int
    suppressed: int
    suppressed_before: int
    lifted_later: int
    opt_outs_recorded: int
    messages_refused: int
    faults: list[SuppressionFault]
