"""Twilio's Content API (v1): WhatsApp templates of an account.

Requests are built here, with the fields that Twilio's description of the API names. Each call is one request: nothing is repeated
by this module. A creation whose answer was lost is found again by its name in the list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from channels.base import ChannelError, Uncertain
from channels.http import HttpRequest, HttpResponse, HttpTransport, header_lines
from channels.whatsapp_templates import Category, NewContent, ProviderTemplate, TemplateButton, TemplateStatus

PAGE_SIZE = 200  # the API allows 1,000; `channels.http` reads answers of at most 1 MB
PAGES_MAX = 20
_STATUSES = {status.value: status for status in TemplateStatus} | {"": TemplateStatus.UNSUBMITTED}

ErrorReader = Callable[[HttpResponse], ChannelError]


class TwilioContent:
    """The client of one account; see `channels.whatsapp_templates.TemplateClient`.

    `headers` carry the credentials; `read_error` gives the error that a refusal means.
    """

    def __init__(
        self, account_sid: str, base_url: str, headers: Mapping[str, str], http: HttpTransport, read_error: ErrorReader
    ) -> None:
        self.account = f"twilio:{account_sid}"
        self._base_url, self._http, self._read_error = base_url.rstrip("/"), http, read_error
        self._get_headers = header_lines(headers)
        self._post_headers = header_lines({**headers, "Content-Type": "application/json"})

    def create(self, template: NewContent) -> str | ChannelError:
        """`POST /v1/Content`."""
        answer = self._request(self.creation(template))
        if isinstance(answer, ChannelError):
            return answer
        sid = answer.fields().get("sid")
        return sid if isinstance(sid, str) and sid.startswith("HX") else Uncertain("no_name")

    def creation(self, template: NewContent) -> HttpRequest:
        """The request that creates a template."""
        document = {
            "friendly_name": template.name,
            "language": template.language,
            "variables": dict(template.examples),
            "types": content_types(template.text, template.buttons),
        }
        return self._post("/v1/Content", document)

    def submit(self, content_sid: str, name: str, category: Category) -> ChannelError | None:
        """`POST /v1/Content/{sid}/ApprovalRequests/whatsapp`."""
        answer = self._request(self.submission(content_sid, name, category))
        return answer if isinstance(answer, ChannelError) else None

    def submission(self, content_sid: str, name: str, category: Category) -> HttpRequest:
        """The request that submits a template. WhatsApp must not move it to another category: it has to refuse it instead."""
        document = {"name": name, "category": category.value, "allow_category_change": False}
        return self._post(f"/v1/Content/{content_sid}/ApprovalRequests/whatsapp", document)

    def list_all(self) -> Sequence[ProviderTemplate] | ChannelError:
        """`GET /v1/ContentAndApprovals`, all pages."""
        path = f"/v1/ContentAndApprovals?PageSize={PAGE_SIZE}"
        templates: list[ProviderTemplate] = []
        for _ in range(PAGES_MAX):
            answer = self._request(HttpRequest(self._base_url + path, self._get_headers))
            if isinstance(answer, ChannelError):
                return answer
            document = answer.fields()
            try:
                templates += [template for row in document["contents"] if (template := _read(row)) is not None]
                next_url = urlsplit(document["meta"].get("next_page_url") or "")
            except (KeyError, TypeError, ValueError, AttributeError):
                return Uncertain("unreadable")
            if not next_url.path:
                return templates
            path = f"{next_url.path}?{next_url.query}"  # of this host only: the answer must not choose where the key is sent
        return Uncertain("too_many_templates")

    def _post(self, path: str, document: object) -> HttpRequest:
        return HttpRequest(self._base_url + path, self._post_headers, json.dumps(document, ensure_ascii=False).encode())

    def _request(self, request: HttpRequest) -> HttpResponse | ChannelError:
        answer = self._http.request(request)
        if not isinstance(answer, HttpResponse) or 200 <= answer.status < 300:
            return answer
        return self._read_error(answer)


# -- content types -----------------------------------------------------------------------------------------------------


def content_types(text: str, buttons: Sequence[TemplateButton]) -> dict[str, Any]:
    """The content of a template as Twilio names it: plain text, quick replies, links, or a card with both."""
    replies, links = [each for each in buttons if not each.url], [each for each in buttons if each.url]
    if not buttons:
        return {"twilio/text": {"body": text}}
    kind = "whatsapp/card" if replies and links else "twilio/quick-reply" if replies else "twilio/call-to-action"
    return {kind: {"body": text, "actions": [_action(button) for button in buttons]}}


def _action(button: TemplateButton) -> dict[str, str]:
    if button.url:
        return {"type": "URL", "title": button.title, "url": button.url}
    return {"type": "QUICK_REPLY", "title": button.title, "id": button.payload}


def _read(row: Mapping[str, Any]) -> ProviderTemplate | None:
    """A template of the list; None for content of a kind that this program does not make."""
    for content in row["types"].values():
        if isinstance(content, Mapping) and isinstance(content.get("body"), str):
            approval = row.get("approval_requests") or {}
            return ProviderTemplate(
                content_sid=str(row["sid"]),
                name=str(row.get("friendly_name") or ""),
                language=str(row.get("language") or ""),
                text=content["body"],
                buttons=tuple(_button(action) for action in content.get("actions") or ()),
                status=_STATUSES.get(str(approval.get("status") or "").lower(), TemplateStatus.UNKNOWN),
                category=str(approval.get("category") or "").upper(),
                rejection_reason=str(approval.get("rejection_reason") or ""),
            )
    return None


def _button(action: Mapping[str, Any]) -> TemplateButton:
    return TemplateButton(str(action.get("title") or ""), str(action.get("id") or ""), str(action.get("url") or ""))
