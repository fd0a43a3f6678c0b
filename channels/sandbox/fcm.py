"""Double of Firebase Cloud Messaging (HTTP v1), and the OAuth token endpoint that its clients call first."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from channels.base import Channel
from channels.sandbox.arrivals import Arrival
from channels.sandbox.doubles import Double, SandboxRoute, route_for
from channels.sandbox.http import SandboxRequest, SandboxResponse
from channels.sandbox.keys import write_service_account
from channels.sandbox.state import SandboxState, StoredRequest, digest
from channels.sandbox.twilio import parse_form

PAYLOAD_BYTES_MAX = 4_096
TOKEN_SECONDS = 3_600
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_MESSAGE_ID_NAMES = ("message", "message_id", "id")

# A token with this prefix gets this FCM error code ("+": a general Google error, without an FcmError detail).
MAGIC_TOKENS: Mapping[str, str] = {
    "unregistered": "UNREGISTERED",
    "invalid": "INVALID_ARGUMENT",
    "badfield": "+INVALID_ARGUMENT",
    "mismatch": "SENDER_ID_MISMATCH",
    "quota": "QUOTA_EXCEEDED",
    "unavailable": "UNAVAILABLE",
    "internal": "INTERNAL",
    "thirdparty": "THIRD_PARTY_AUTH_ERROR",
    "unauthenticated": "+UNAUTHENTICATED",
    "denied": "+PERMISSION_DENIED",
}
LOST = "lost"  # taken, but the connection closes without an answer

_ERRORS = {
    "INVALID_ARGUMENT": (400, "INVALID_ARGUMENT", "The registration token is not a valid FCM registration token"),
    "MESSAGE_TOO_BIG": (400, "INVALID_ARGUMENT", "Message is too big"),  # differs from the others by its message only
    "UNAUTHENTICATED": (401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
    "THIRD_PARTY_AUTH_ERROR": (401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service"),
    "PERMISSION_DENIED": (403, "PERMISSION_DENIED", "Permission denied on this project."),
    "SENDER_ID_MISMATCH": (403, "PERMISSION_DENIED", "SenderId mismatch"),
    "UNREGISTERED": (404, "NOT_FOUND", "Requested entity was not found."),
    "NOT_FOUND": (404, "NOT_FOUND", "Requested entity was not found."),
    "QUOTA_EXCEEDED": (429, "RESOURCE_EXHAUSTED", "Quota exceeded for this project."),
    "INTERNAL": (500, "INTERNAL", "Internal error encountered."),
    "UNAVAILABLE": (503, "UNAVAILABLE", "The service is currently unavailable."),
}
_CODE_BY_STATUS = {
    400: "+INVALID_ARGUMENT",
    401: "+UNAUTHENTICATED",
    403: "+PERMISSION_DENIED",
    404: "+NOT_FOUND",
    429: "QUOTA_EXCEEDED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def refusal(status: int, error: str = "", _now: float = 0.0, *, field: str = "") -> SandboxResponse:
    """Return Google's error answer, by FCM's code (`error`) or by HTTP status; `field` names the invalid field."""
    code = error or _CODE_BY_STATUS.get(status, "INTERNAL")
    default_status, name, text = _ERRORS.get(code.removeprefix("+"), (400, code, "The request was refused."))
    status = status or default_status
    if code == "+INVALID_ARGUMENT":
        text = f"Invalid value at '{field or 'message'}'"
    details: list[dict[str, Any]] = []
    if not code.startswith("+"):
        details.append(
            {
                "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
                "errorCode": name if status == 400 else code,
            }
        )
    if field or code == "+INVALID_ARGUMENT":
        violation = {"field": field or "message", "description": text}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    fault = {"code": status, "message": text, "status": name, **({"details": details} if details else {})}
    headers = (("Retry-After", "60"),) if status == 429 else ()
    return SandboxResponse(status, json.dumps({"error": fault}).encode(), "application/json; charset=UTF-8", headers)


def send(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`POST /v1/projects/{project}/messages:send`: 200 and the message's name."""
    scheme, _, access = request.head.headers.get("authorization", "").partition(" ")
    if scheme != "Bearer" or not access or access in state.refused_keys:
        return refusal(401)
    try:
        document = from_json(request.body, allow_inf_nan=False)
    except ValueError:
        return refusal(400)
    if field := _invalid_field(document):
        return refusal(400, "+INVALID_ARGUMENT", field=field)
    message = document["message"]
    if _payload_bytes(message) > PAYLOAD_BYTES_MAX:
        return refusal(400, "MESSAGE_TOO_BIG")
    target = message.get("token") or message.get("fid") or ""
    magic = next((code for beginning, code in MAGIC_TOKENS.items() if target.startswith(beginning)), None)
    if magic is not None:
        return refusal(0, magic, field="message.token" if magic == "INVALID_ARGUMENT" else "")
    project = request.head.path.split("/")[3]
    if document.get("validate_only"):
        return _success(project, "fake_message_id")
    data = message.get("data", {})
    message_id = next((data[name] for name in _MESSAGE_ID_NAMES if name in data), "")
    name = f"0:{state.log.next_seq:016x}%{state.nonce}"
    receipt = f"projects/{project}/messages/{name}"
    address = target or message.get("topic") or message["condition"]
    state.record(request.body, (Arrival("fcm", "push", address, message_id, receipt, digest(request.body)),))
    return _success(project, name)._replace(lost=target.startswith(LOST))


def _success(project: str, name: str) -> SandboxResponse:
    return SandboxResponse(
        200, json.dumps({"name": f"projects/{project}/messages/{name}"}).encode(), "application/json; charset=UTF-8"
    )


def _invalid_field(document: object) -> str:
    """Return the path of the first field that Google's front end would refuse; empty if there is none."""
    if not isinstance(document, dict) or not isinstance(document.get("message"), dict):
        return "message"
    message = document["message"]
    if sum(kind in message for kind in ("token", "fid", "topic", "condition")) != 1:
        return "message"
    for name in ("token", "fid", "topic", "condition"):
        if name in message and (not isinstance(message[name], str) or not message[name]):
            return f"message.{name}"
    return _invalid_data(message.get("data", {})) or _invalid_notification(message.get("notification", {}))


def _invalid_data(data: object) -> str:
    if not isinstance(data, dict):
        return "message.data"
    for name, value in data.items():
        if not isinstance(value, str):
            return f"message.data[{name}].value"
        if name == "from" or name == "message_type" or name.startswith(("google.", "gcm.")):
            return f"message.data[{name}].key"
    return ""


def _invalid_notification(notification: object) -> str:
    if not isinstance(notification, dict):
        return "message.notification"
    wrong = (name for name in ("title", "body", "image") if not isinstance(notification.get(name, ""), str))
    return next((f"message.notification.{name}" for name in wrong), "")


def _payload_bytes(message: Mapping[str, Any]) -> int:
    """Count the bytes of keys and values of the data and the notification."""
    parts = (message.get("data", {}), message.get("notification", {}))
    return sum(len(text.encode()) for text in _texts(parts))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def issue_token(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`POST /token`: an access token for a signed assertion of any service account (the sandbox has no public keys)."""
    form = parse_form(request.body)
    claims = _claims(form.get("assertion", ""))
    if form.get("grant_type") != JWT_GRANT or not {"iss", "aud", "iat", "exp"} <= claims.keys():
        return token_refusal(400)
    if claims["iss"] in state.refused_keys:
        return token_refusal(401)
    state.tokens_issued += 1
    answer = {
        "access_token": f"ya29.{state.nonce}.{state.tokens_issued}",
        "expires_in": TOKEN_SECONDS,
        "token_type": "Bearer",
    }
    return SandboxResponse(200, json.dumps(answer).encode())


def token_refusal(status: int, error: str = "", _now: float = 0.0) -> SandboxResponse:
    """Return the OAuth endpoint's error answer."""
    fault = {"error": error or "invalid_grant", "error_description": "Invalid JWT."}
    return SandboxResponse(status or 400, json.dumps(fault).encode())


def _claims(assertion: str) -> dict[str, Any]:
    """Return the claims of a JWT, without checking its signature; empty for anything else."""
    parts = assertion.split(".")
    try:
        header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in parts[:2])
    except ValueError:
        return {}
    signed = len(parts) == 3 and parts[2] and isinstance(header, dict) and header.get("alg") == "RS256"
    return claims if signed and isinstance(claims, dict) else {}


def _find_route(method: str, path: str) -> SandboxRoute | None:
    if path == "/token":
        return route_for(method, {"POST": issue_token}, "google", token_refusal)
    if path.startswith("/v1/projects/"):
        return route_for(method, {"POST": send} if path.endswith("/messages:send") else {}, "fcm", refusal)
    return None


def _read_content(_state: SandboxState, request: StoredRequest, _seq: int) -> dict[str, Any]:
    message = json.loads(request.body)["message"]
    notification = message.get("notification", {})
    platforms = {name: message[name] for name in ("android", "apns", "webpush") if name in message}
    return {
        "title": notification.get("title", ""),
        "body": notification.get("body", ""),
        "image": notification.get("image", ""),
        "data": message.get("data", {}),
        **platforms,
    }


def _credentials(url: str, folder: Path) -> Mapping[str, Any]:
    """Return a service account for a sandbox at this URL, made on first use."""
    path = folder / f"service-account-{url.rpartition(':')[2].strip('/')}.json"
    return {"credentials": path if path.exists() else write_service_account(path, url), "base_url": url}


DOUBLE = Double("fcm", _find_route, _read_content, frozenset({Channel.PUSH}), _credentials, ("fcm", "google"))
