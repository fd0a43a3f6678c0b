"""Queries of Twilio's double: the messages to a number, one message, the account. Answered from the arrival log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from channels.sandbox.arrivals import Arrival
from channels.sandbox.http import SandboxRequest, SandboxResponse
from channels.sandbox.state import SandboxState
from channels.sandbox.twilio import account_of, check_key, refusal, resource
from channels.sandbox.twilio_rules import WHATSAPP, magic_code, statuses_of

LISTED_MAX = 20_000  # how many messages a list without a number searches
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def list_messages(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`GET …/Messages.json?To=…&From=…&DateSent[<|>]=…`: newest first, one page of `PageSize`."""
    account = account_of(request)
    if refused := check_key(state, request, account):
        return refused
    path, query = request.head.path, dict(parse_qsl(request.head.query))
    try:
        size, page = int(query.get("PageSize", "50")), int(query.get("Page", "0"))
        lines = [line for line in _candidates(state, query) if _matches(line, query)]
    except (ValueError, TypeError):
        return refusal(400)
    start = page * size
    shown = lines[start : start + size]
    more = f"{path}?{urlencode({**query, 'Page': str(page + 1)})}" if len(lines) > start + size else None
    document = {
        "messages": [_resource_of(state, account, line) for line in shown],
        "page": page,
        "page_size": size,
        "start": start,
        "end": start + max(len(shown) - 1, 0),
        "uri": f"{path}?{request.head.query}",
        "first_page_uri": f"{path}?{urlencode({**query, 'Page': '0'})}",
        "previous_page_uri": f"{path}?{urlencode({**query, 'Page': str(page - 1)})}" if page else None,
        "next_page_uri": more,
    }
    return SandboxResponse(200, json.dumps(document).encode())


def fetch_message(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`GET …/Messages/{sid}.json`."""
    account = account_of(request)
    if refused := check_key(state, request, account):
        return refused
    sid = request.head.path.rpartition("/")[2].removesuffix(".json")
    line = state.log.get(_seq_of(sid))
    if line is None or line["receipt"] != sid:
        return refusal(404)
    return SandboxResponse(200, json.dumps(_resource_of(state, account, line)).encode())


def fetch_account(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`GET /2010-04-01/Accounts/{sid}.json`: clients use it to check a key."""
    account = account_of(request)
    if refused := check_key(state, request, account):
        return refused
    moment = format_datetime(datetime.fromtimestamp(state.clock(), UTC))
    document = {
        "sid": account,
        "friendly_name": "Sandbox",
        "status": "active",
        "type": "Full",
        "owner_account_sid": account,
        "auth_token": None,
        "date_created": moment,
        "date_updated": moment,
        "uri": f"/2010-04-01/Accounts/{account}.json",
        "subresource_uris": {"messages": f"/2010-04-01/Accounts/{account}/Messages.json"},
    }
    return SandboxResponse(200, json.dumps(document).encode())


def _candidates(state: SandboxState, query: Mapping[str, str]) -> list[dict[str, Any]]:
    if to := query.get("To"):
        return list(state.log.messages_to(to.removeprefix(WHATSAPP)))
    blocks = state.log.lines(max(state.log.next_seq - LISTED_MAX, 0), provider="twilio")
    return [json.loads(line) for block in blocks for line in block.splitlines()][::-1]


def _matches(line: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    to, sent = query.get("To"), datetime.fromtimestamp(line["at"], UTC)
    return (
        (to is None or (line["channel"] == "whatsapp") == to.startswith(WHATSAPP))
        and query.get("From", line["sender"]) == line["sender"]
        and _parse_time(query.get("DateSent"), sent).date() == sent.date()
        and _parse_time(query.get("DateSent>"), _EARLIEST) <= sent
        and sent <= _parse_time(query.get("DateSent<"), _LATEST)
    )


def _parse_time(text: str | None, default: datetime) -> datetime:
    """Parse a day or a time, in ISO 8601 as the SDK writes it or in RFC 2822. Raises ValueError or TypeError."""
    if not text:
        return default
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = parsedate_to_datetime(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _resource_of(state: SandboxState, account: str, line: Mapping[str, Any]) -> dict[str, Any]:
    arrival = Arrival(**{name: line[name] for name in Arrival._fields})
    statuses, code = statuses_of(
        state.failed.get(arrival.receipt) or magic_code(arrival.address), whatsapp=arrival.channel == "whatsapp"
    )
    return resource(account, arrival, line["at"], statuses[-1], code)


def _seq_of(sid: str) -> int:
    """Return a message's number, which is the end of its SID; 0 for another SID."""
    try:
        return int(sid[-16:], 16)
    except ValueError:
        return 0
