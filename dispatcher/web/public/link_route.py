"""Routes for people who follow a link in a message: a token comes in, a page goes out, and every error is a page in plain words.

The token in the link is the only credential: no login, no cookie. A browser adds nothing to the request by itself, so another site
cannot act in a visitor's name without knowing the token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message

from dispatcher.consent.link_owner import LinkOwner, owner_of_token
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.web.pages.customer import HEADERS, page

BODY_BYTES_MAX = 16_384
FIELDS_MAX = 50


class PageError(Exception):
    """An error that is shown as a page: the name of its notice among the texts, and the HTTP status."""

    def __init__(self, notice: str, status: int, language: Language | None = None, **values: object) -> None:
        super().__init__(notice)
        self.notice = notice
        self.status = status
        self.language = language
        self.values = values


def show(name: str, language: Language, status: int = 200, **context: Any) -> HTMLResponse:
    """A page as a response."""
    return HTMLResponse(page(name, language, **context), status, headers={"Content-Language": language})


class LinkRoute(APIRoute):
    """Adds the headers that keep tokens and choices private to every response, and turns every error into a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `fastapi.routing.APIRoute`."""
        handle: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                response = await handle(request)
            except PageError as error:
                response = _notice(request, error)
            except LedgerUnavailable:
                response = _notice(request, PageError("unavailable", 503))
                response.headers["Retry-After"] = "60"
            response.headers.update(HEADERS)
            return response

        return guarded


def _notice(request: Request, error: PageError) -> Response:
    language = _requested_language(request) or error.language or accepted(request.headers.get("accept-language", ""))
    return show("notice", language, error.status, notice=error.notice, values=error.values)


# -- the visitor -------------------------------------------------------------------------------------------------------


def owner_of_link(request: Request, purpose: str, token: str) -> LinkOwner:
    """Whose link this is. Raises `PageError` for a token that is not ours, or whose message is gone."""
    owner = owner_of_token(request.app.state.services, purpose, token)
    if owner is None:
        raise PageError("unknown", 404)
    return owner


def language_of(request: Request, owner: LinkOwner) -> Language:
    """The language that the visitor chose on the page, else the one on record."""
    return _requested_language(request) or (owner.language if owner.language in LANGUAGES else "en")


def _requested_language(request: Request) -> Language | None:
    language = request.query_params.get("lang", "")
    return language if language in LANGUAGES else None


def accepted(header: str) -> Language:
    """The best of our languages for an Accept-Language header (RFC 9110, section 12.5.4); English where none fits."""
    best, best_weight = "en", 0.0
    for part in header.split(","):
        tag, _, parameters = part.partition(";")
        language = tag.strip().lower().partition("-")[0]
        weight = _weight(parameters)
        if language in LANGUAGES and weight > best_weight:
            best, best_weight = language, weight
    return best


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


# -- the form ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SubmittedForm:
    """The fields of a submitted form, each with all its values. Files are left out."""

    fields: Mapping[str, tuple[str, ...]]

    def one(self, name: str) -> str:
        """A field's only value; "" where it is missing. Raises `PageError` where it comes more than once."""
        values = self.fields.get(name, ("",))
        if len(values) > 1:
            raise PageError("unreadable", 400)
        return values[0]

    def all(self, name: str) -> frozenset[str]:
        """All values of a field that may be ticked several times."""
        return frozenset(self.fields.get(name, ()))


async def read_form(request: Request) -> SubmittedForm:
    """A small form, as multipart/form-data or urlencoded (RFC 8058 allows both). Raises `PageError` for anything else."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            raise PageError("unreadable", 413)
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        pairs = await _multipart(request, bytes(body))
    else:
        try:
            pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=FIELDS_MAX)
        except ValueError:
            raise PageError("unreadable", 400) from None
    fields: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        fields[name] = (*fields.get(name, ()), value)
    return SubmittedForm(fields)


async def _multipart(request: Request, body: bytes) -> list[tuple[str, str]]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(request.scope, receive).form(max_files=0, max_fields=FIELDS_MAX) as form:
            return [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    except (HTTPException, ValueError, LookupError):  # not the form it says it is, or in no known character set
        raise PageError("unreadable", 400) from None


Submitted = Annotated[SubmittedForm, Depends(read_form)]
