"""Middleware of all routes: a limit for bodies, security headers, and errors without details."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dispatcher.web.api_keys import ApiKeyRing, Right
from dispatcher.web.errors import problem

log = structlog.get_logger()

MEGABYTE = 1_048_576
BODY_BYTES_MAX = MEGABYTE
BODY_BYTES_MAX_AT: Mapping[str, int] = {
    "/webhooks/": 2 * MEGABYTE,
    "/v1/campaigns": 32 * MEGABYTE,
    "/console/campaigns/": 32 * MEGABYTE,  # audiences come inline
    "/console/drafts/": 256 * MEGABYTE,  # audiences, which go to a file; read once the session is checked
    "/v1/recipients/bulk": 64 * 1024 * MEGABYTE,  # is read line by line
    "/v1/preferences/bulk": 64 * 1024 * MEGABYTE,
    "/v1/suppressions/import": 512 * MEGABYTE,  # goes to a file, not to memory
    "/v1/audiences/": 1_048_576 * MEGABYTE,  # streamed to a file; DISPATCHER_UPLOAD_BYTES_MAX is checked there
}

# Styles and forms only from and to this site, scripts nowhere. A page that needs more sets the header itself.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # our links contain tokens
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
COMPRESSED_AT = "/v1/audiences/"  # these read gzip
NOT_ENCODED = "a body with Content-Encoding is not read here; send it as it is"
KEY_NEEDED = "an API key is needed, as `Authorization: Bearer <key>`"
HSTS = "max-age=31536000; includeSubDomains"


class SecurityHeaders:
    """Sets the headers above where the response does not set them itself."""

    def __init__(self, app: ASGIApp, https: bool) -> None:
        self._app = app
        self._headers = {**HEADERS, "Strict-Transport-Security": HSTS} if https else HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""

        async def send_headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_headed)


class KeyRequired:
    """Asks for an API key at some paths: with the right that is given there, or with any right."""

    def __init__(self, app: ASGIApp, keys: ApiKeyRing, paths: Mapping[str, Right | None]) -> None:
        self._app, self._keys, self._paths = app, keys, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        caller = self._keys.find(key.strip()) if scheme.lower() == "bearer" else None
        needed = self._paths[scope["path"]]
        if caller is None:
            refusal = problem(request, HTTPStatus.UNAUTHORIZED, KEY_NEEDED, headers={"WWW-Authenticate": "Bearer"})
        elif needed is not None and needed not in caller.rights:
            refusal = problem(request, HTTPStatus.FORBIDDEN, f"this key lacks the right {needed.value!r}")
        else:
            await self._app(scope, receive, send)
            return
        await refusal(scope, receive, send)


class UnambiguousLength:
    """Refuses a request that states its length in two ways: a proxy may read one and we the other, and what one of them takes for
    the rest of a body is a request to the other (RFC 9112 section 6.1).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "transfer-encoding" in headers and "content-length" in headers:
            refusal = problem(
                Request(scope),
                HTTPStatus.BAD_REQUEST,
                "Content-Length and Transfer-Encoding must not come together",
                headers={"Connection": "close"},
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


class PlainBody:
    """Refuses a body in a content encoding, which nothing here undoes: read as it comes, it would be taken for something else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""
        codings = Headers(scope=scope).getlist("content-encoding") if scope["type"] == "http" else []
        if any(coding.strip().lower() != "identity" for coding in codings) and not scope["path"].startswith(COMPRESSED_AT):
            # RFC 9110, section 15.5.16: the answer names the encodings that are accepted.
            refusal = problem(
                Request(scope), HTTPStatus.UNSUPPORTED_MEDIA_TYPE, NOT_ENCODED, headers={"Accept-Encoding": "identity"}
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


class BodySizeLimit:
    """Refuses a body that is too large, by its declared length and by its real one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        allowed = next((size for path, size in BODY_BYTES_MAX_AT.items() if scope["path"].startswith(path)), BODY_BYTES_MAX)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isascii() and declared.isdigit() and (len(declared) > 15 or int(declared) > allowed):
            await problem(Request(scope), HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(allowed))(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > allowed:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(allowed))
            return message

        await self._app(scope, receive_limited, send)


class ErrorBoundary:
    """Our own errors: 500 to the caller, class and place to the log. The text may contain personal data, so it is dropped."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""
        started = False

        async def send_observed(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except Exception as error:
            if scope["type"] != "http":
                raise
            log.error("a request failed", fault=type(error).__name__, place=_place(error), method=scope["method"])
            if not started:
                await problem(Request(scope), HTTPStatus.INTERNAL_SERVER_ERROR)(scope, receive, send)


def _too_large(allowed: int) -> str:
    return f"at most {allowed // MEGABYTE} MB are accepted here"


def _place(error: BaseException) -> str:
    """The innermost line of our own code, as "module:line"."""
    place, step = "", error.__traceback__
    while step is not None:
        module = step.tb_frame.f_globals.get("__name__", "")
        if module.startswith(("dispatcher.", "channels.")):
            place = f"{module}:{step.tb_lineno}"
        step = step.tb_next
    return place
