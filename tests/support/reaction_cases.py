"""The table of error reactions (`error_reactions.json`) as test cases: what a provider answers or reports, and what must follow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from channels.base import Channel
from dispatcher.domain.message import State
from tests.support.api_descriptions import FIELD
from tests.support.http_servers import LOST, Answer, http_answer
from tests.support.provider_cases import SENDGRID as MAIL_ANSWERS
from tests.support.provider_cases import as_json

Row = Mapping[str, Any]
TABLE = FIELD / "error_reactions.json"
ROWS: list[Row] = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else []
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


@dataclass(frozen=True, slots=True)
class ExpectedOutcome:
    """The state of a message, and what else is done."""

    state: State
    suppress: bool = False
    opt_out: bool = False
    stop: bool = False
    alert: bool = False


# What each class of the table means at sending, and in an event about an accepted message.
AT_SEND: Mapping[str, ExpectedOutcome] = {
    "accepted": ExpectedOutcome(State.ACCEPTED),
    "sandbox": ExpectedOutcome(State.UNRESOLVED),  # a 200 does not mean that it was accepted
    "config_error": ExpectedOutcome(State.WAITING, stop=True),
    "config_error_country": ExpectedOutcome(State.FAILED, alert=True),
    "quota": ExpectedOutcome(State.WAITING, stop=True),
    "retry": ExpectedOutcome(State.WAITING),
    "permanent_address": ExpectedOutcome(State.FAILED, suppress=True),
    "permanent_address if the payload is known good": ExpectedOutcome(State.FAILED, suppress=True),
    "permanent_message": ExpectedOutcome(State.FAILED),
    "bug_in_request": ExpectedOutcome(State.FAILED),
    "opted_out": ExpectedOutcome(State.FAILED, suppress=True, opt_out=True),
    "ambiguous": ExpectedOutcome(State.UNRESOLVED),
    "unknown": ExpectedOutcome(State.FAILED, alert=True),
}
IN_EVENTS: Mapping[str, ExpectedOutcome] = {
    "accepted": ExpectedOutcome(State.ACCEPTED),
    "waiting": ExpectedOutcome(State.ACCEPTED),
    "delivered": ExpectedOutcome(State.DELIVERED),
    "engagement": ExpectedOutcome(State.DELIVERED),
    "opted_in": ExpectedOutcome(State.ACCEPTED),
    "opted_out": ExpectedOutcome(State.FAILED, suppress=True, opt_out=True),
    "complaint": ExpectedOutcome(State.COMPLAINED, suppress=True, opt_out=True),
    "permanent_address": ExpectedOutcome(State.BOUNCED, suppress=True),
    "permanent_message": ExpectedOutcome(State.FAILED),
    "temporary_message": ExpectedOutcome(State.WAITING),
    "temporary_address": ExpectedOutcome(State.WAITING),
    "blocked": ExpectedOutcome(State.FAILED),
    "bug_in_request": ExpectedOutcome(State.FAILED, alert=True),
    "config_error": ExpectedOutcome(State.FAILED, alert=True),
    "expired": ExpectedOutcome(State.FAILED),
    "retry": ExpectedOutcome(State.WAITING),
    "ambiguous": ExpectedOutcome(State.ACCEPTED),  # it may have arrived
    "unknown": ExpectedOutcome(State.FAILED, alert=True),
}
# Rows whose outcome does not follow from their class.
HALT = ExpectedOutcome(State.FAILED, stop=True)
EXCEPTIONS: Mapping[tuple[str, str], ExpectedOutcome] = {
    ("event", "21703"): HALT,
    ("event", "30002"): HALT,
    ("event", "63001"): HALT,
    ("event", "63051"): HALT,
    ("event", "dropped Recipient List over Package Quota / Invalid SMTPAPI header"): HALT,
    ("event", "63033"): ExpectedOutcome(State.BOUNCED, suppress=True),
    ("event", "30008"): ExpectedOutcome(State.FAILED),  # "outcome unclear": the table's retry could arrive twice
    ("event", "30007"): ExpectedOutcome(State.FAILED, alert=True),
    ("event", "63013"): ExpectedOutcome(State.FAILED, alert=True),
    ("event", "unsubscribe"): ExpectedOutcome(State.ACCEPTED, suppress=True, opt_out=True),
    ("event", "group_unsubscribe"): ExpectedOutcome(State.ACCEPTED, suppress=True, opt_out=True),  # no groups: an opt-out
    **{("send", code): ExpectedOutcome(State.FAILED, alert=True) for code in ("21602", "21603", "21604", "21656")},
}
DAY_SECONDS = 86_400.0
WAITS_SECONDS_MIN = {  # where the table gives a minimum wait, or says "next day", "hours", "much later"
    "21611": 120.0,
    "QUOTA_EXCEEDED": 60.0,
    "30003": 7_200.0,
    "30450": 1_800.0,
    "63018": 3_600.0,
    **dict.fromkeys(("30023", "63038", "63049"), DAY_SECONDS),
}


# -- cases: a row, where it occurs, and the provider's answer ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReactionCase:
    """A row at sending (`answer`) or in webhook events (`events`, to which the message id is added)."""

    row: Row
    where: str
    channel: Channel
    answer: Answer | None = None
    events: tuple[Mapping[str, str], ...] = ()
    variant: int = 0

    @property
    def name(self) -> str:
        return f"{self.row['provider']}-{self.row['code']}-{self.where}-{self.variant}".replace(" ", "_").replace("/", "|")

    @property
    def banned(self) -> set[str]:
        """The channels on which the address is suppressed: both for something that is not a number."""
        return {"sms", "whatsapp"} if self.row["suppress"] == "sms+whatsapp address" else {self.channel.value}

    @property
    def outcome(self) -> ExpectedOutcome:
        by_class = AT_SEND if self.where == "send" else IN_EVENTS
        return EXCEPTIONS.get((self.where, str(self.row["code"]))) or by_class[self.row["class"]]


def cases() -> Iterator[ReactionCase]:
    for row in ROWS:
        yield from {"twilio": text_cases, "sendgrid": mail_cases, "fcm": push_cases}[row["provider"]](row)


def text_cases(row: Row) -> Iterator[ReactionCase]:
    code = "29999" if row["code"] is None else str(row["code"])
    channel = Channel.WHATSAPP if code.startswith("63") else Channel.SMS
    at_send, in_events = "send" in row["where"], "callback" in row["where"]
    if code == "5xx or no answer":
        for number, answer in enumerate((http_answer(500), http_answer(503, b"<html>"), LOST)):
            yield ReactionCase(row, "send", channel, answer, variant=number)
    elif at_send or not in_events:
        statuses = [status for status in (401, 404, 429) if str(status) in row["where"]] or [400]
        yield ReactionCase(
            row, "send", channel, as_json(statuses[0], {"code": int(code), "message": "prose", "status": statuses[0]})
        )
    if in_events or row["code"] is None:
        yield ReactionCase(row, "event", channel, None, ({"status": "undelivered", "code": code},))
        yield ReactionCase(row, "event", channel, None, ({"status": "sent"}, {"status": "failed", "code": code}), variant=1)


def mail_cases(row: Row) -> Iterator[ReactionCase]:
    code = str(row["code"])
    if row["where"] == "event webhook":
        for number, fields in enumerate(mail_fields(code)):
            yield ReactionCase(row, "event", Channel.EMAIL, None, (fields,), number)
    elif code == "no answer":
        yield ReactionCase(row, "send", Channel.EMAIL, LOST)
    else:
        for number, status in enumerate(code.split(" ")[0].split("/")):
            yield ReactionCase(row, "send", Channel.EMAIL, mail_answer(int(status), code), variant=number)


def mail_answer(status: int, code: str) -> Answer:
    if status == 413:
        return http_answer(413, b"<html><center><h1>413 Request Entity Too Large</h1></center></html>")
    if status < 300:
        return MAIL_ANSWERS.fine(1) if status == 202 else http_answer(status)
    message = code.partition(" ")[2] or "too many requests"
    return as_json(status, {"errors": [{"field": None, "message": message}]})


def mail_fields(code: str) -> Iterator[Mapping[str, str]]:
    event, _, rest = code.partition(" ")
    if event == "dropped":
        yield from ({"event": "dropped", "reason": reason} for reason in rest.split(" / "))
    elif event == "bounce":
        yield {"event": "bounce", "type": rest.removeprefix("type="), "status": "5.0.0"}
    else:
        yield from ({"event": word} for word in code.split("/"))


def push_cases(row: Row) -> Iterator[ReactionCase]:
    if row["http"] is None:
        yield ReactionCase(row, "send", Channel.PUSH, LOST)
        return
    code = row["code"].split(" ")[0]
    details: list[dict[str, Any]] = [{"@type": FCM_ERROR, "errorCode": code}]
    if "fieldViolations" in row["code"]:
        details = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "message.token"}]}]
    elif "no FcmError" in row["code"]:
        details = []
    message = "The registration token is not a valid FCM registration token"
    error = {"code": row["http"], "status": row["status"], "message": message, "details": details}
    yield ReactionCase(row, "send", Channel.PUSH, as_json(row["http"], {"error": error}))


CASES = list(cases())
