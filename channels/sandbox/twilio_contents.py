"""Double of Twilio's Content API (v1): contents, and their approval by WhatsApp."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from channels.sandbox.contents import UNSUBMITTED, StoredContent
from channels.sandbox.doubles import RouteHandler, SandboxRoute, route_for
from channels.sandbox.http import SandboxRequest, SandboxResponse
from channels.sandbox.state import SandboxState
from channels.sandbox.twilio import basic_user, check_key, refusal

PREFIX = "/v1/Content"
_SID = re.compile(r"HX[0-9a-fA-F]{32}")
_NAME = re.compile(r"[a-z0-9_]{1,512}")
_PLACEHOLDER = re.compile(r"\{\{(\d+)\}\}")
_TYPES = frozenset({"twilio/text", "twilio/quick-reply", "twilio/call-to-action", "whatsapp/card"})
_TYPES_WITH_ACTIONS = _TYPES - {"twilio/text", "whatsapp/card"}
_CATEGORIES = frozenset({"MARKETING", "UTILITY", "AUTHENTICATION"})
_REPLIES_MAX, _TITLE_MAX = 10, 25


class _BadRequest(ValueError):
    """The API would refuse this request."""


def find_route(method: str, path: str) -> SandboxRoute | None:
    """The route of a path of the Content API; None for another path."""
    if not path.startswith(PREFIX):
        return None
    handlers: dict[str, RouteHandler] = {}
    match path.removeprefix("/v1/").split("/"):
        case ["Content"]:
            handlers = {"POST": _create, "GET": _list}
        case ["ContentAndApprovals"]:
            handlers = {"GET": _list}
        case ["Content", _]:
            handlers = {"GET": _fetch, "DELETE": _delete}
        case ["Content", _, "ApprovalRequests"]:
            handlers = {"GET": _fetch_approval}
        case ["Content", _, "ApprovalRequests", "whatsapp"]:
            handlers = {"POST": _submit}
    return route_for(method, {name: _checked(handler) for name, handler in handlers.items()}, "twilio", refusal)


def _checked(handle: RouteHandler) -> RouteHandler:
    """The handler behind the check of the credentials. A bad request gets Twilio's 400."""

    def checked(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
        account = basic_user(request)
        if refused := check_key(state, request, account):
            return refused
        try:
            return handle(state, request)
        except _BadRequest:
            return refusal(400)

    return checked


def _create(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    document = _document(request)
    language, types, variables = document.get("language"), document.get("types"), document.get("variables") or {}
    if isinstance(types, dict):
        types = {
            kind: content for kind, content in types.items() if content is not None
        }  # the official client sends the others too
    if not isinstance(language, str) or not language or not isinstance(types, dict) or len(types) != 1:
        raise _BadRequest
    _check_types(types)
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise _BadRequest
    state.contents_created += 1
    content = StoredContent(
        sid=f"HX{state.unique_id(state.contents_created)}",
        account=basic_user(request),
        name=str(document.get("friendly_name") or ""),
        language=language,
        types=types,
        variables=variables,
        created_at=state.clock(),
    )
    state.contents.put(content)
    return _answer(_resource(content), 201)


def _check_types(types: Mapping[str, Any]) -> None:
    ((kind, content),) = types.items()
    if kind not in _TYPES or not isinstance(content, dict) or not isinstance(content.get("body"), str) or not content["body"]:
        raise _BadRequest
    actions = content.get("actions", [])
    if not isinstance(actions, list) or len(actions) > _REPLIES_MAX or (kind in _TYPES_WITH_ACTIONS and not actions):
        raise _BadRequest
    for action in actions:
        title = action.get("title") if isinstance(action, dict) else None
        if not isinstance(title, str) or not 0 < len(title) <= _TITLE_MAX:
            raise _BadRequest


def _submit(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """Submit for approval. The review answers at once, as `state.contents.review` says."""
    content, document = _content(state, request), _document(request)
    if content is None:
        return refusal(404)
    name, category = document.get("name"), document.get("category")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or category not in _CATEGORIES:
        raise _BadRequest
    if content.status != UNSUBMITTED:
        raise _BadRequest  # one submission for a content
    review = state.contents.review
    if fault := _review_fault(content):
        status, reason = "rejected", fault
    else:
        status, reason = review.status, review.reason
    content = state.contents.change(content.sid, status=status, reason=reason, category=category, approval_name=name)
    return _answer(_approval(content) | {"status": "received"}, 201)


def _review_fault(content: StoredContent) -> str:
    """What WhatsApp's review rejects in any case: placeholders without an example or a gap, or at the edge of the text."""
    numbers = [int(number) for number in _PLACEHOLDER.findall(content.text)]
    if set(numbers) != set(range(1, len(set(numbers)) + 1)) or not {str(number) for number in numbers} <= set(content.variables):
        return "INVALID_FORMAT"
    return "INVALID_FORMAT" if content.text.startswith("{{") or content.text.rstrip().endswith("}}") else ""


def _fetch(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    content = _content(state, request)
    return _answer(_resource(content)) if content else refusal(404)


def _fetch_approval(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    content = _content(state, request)
    if content is None:
        return refusal(404)
    path = f"{PREFIX}/{content.sid}/ApprovalRequests"
    whatsapp = {"type": "whatsapp"} | _approval(content)
    return _answer({"sid": content.sid, "account_sid": content.account, "whatsapp": whatsapp, "url": path})


def _delete(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    content = _content(state, request)
    return SandboxResponse(204) if content and state.contents.delete(content.sid) else refusal(404)


def _list(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """One page of the account's contents, with or without their approvals."""
    account, query = basic_user(request), dict(parse_qsl(request.head.query))
    try:
        size, page = int(query.get("PageSize", "50")), int(query.get("Page", "0"))
    except ValueError:
        raise _BadRequest from None
    if not 1 <= size <= 1_000 or page < 0:
        raise _BadRequest
    contents = [content for content in state.contents if content.account == account]
    shown, path = contents[page * size : (page + 1) * size], request.head.path
    url = f"https://content.twilio.com{path}?PageSize={size}&Page="
    meta = {
        "page": page,
        "page_size": size,
        "first_page_url": f"{url}0",
        "previous_page_url": f"{url}{page - 1}" if page else None,
        "next_page_url": f"{url}{page + 1}" if len(contents) > (page + 1) * size else None,
        "url": f"{url}{page}",
        "key": "contents",
    }
    approvals = path.endswith("ContentAndApprovals")
    rows = [_resource(each) | ({"approval_requests": _approval(each)} if approvals else {}) for each in shown]
    return _answer({"contents": rows, "meta": meta})


def _content(state: SandboxState, request: SandboxRequest) -> StoredContent | None:
    """The content that the path names, of the caller's account."""
    sid = request.head.path.split("/")[3]
    content = state.contents.get(sid) if _SID.fullmatch(sid) else None
    return content if content is not None and content.account == basic_user(request) else None


def _document(request: SandboxRequest) -> dict[str, Any]:
    try:
        document = json.loads(request.body)
    except ValueError:
        raise _BadRequest from None
    if not isinstance(document, dict):
        raise _BadRequest
    return document


def _answer(document: object, status: int = 200) -> SandboxResponse:
    return SandboxResponse(status, json.dumps(document).encode())


def _approval(content: StoredContent) -> dict[str, Any]:
    return {
        "name": content.approval_name,
        "category": content.category,
        "content_type": next(iter(content.types)),
        "status": content.status,
        "rejection_reason": content.reason,
        "allow_category_change": False,
    }


def _resource(content: StoredContent) -> dict[str, Any]:
    moment = datetime.fromtimestamp(content.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    path = f"https://content.twilio.com{PREFIX}/{content.sid}"
    return {
        "date_created": moment,
        "date_updated": moment,
        "sid": content.sid,
        "account_sid": content.account,
        "friendly_name": content.name,
        "language": content.language,
        "variables": dict(content.variables),
        "types": content.types,
        "url": path,
        "links": {"approval_create": f"{path}/ApprovalRequests/whatsapp", "approval_fetch": f"{path}/ApprovalRequests"},
    }
