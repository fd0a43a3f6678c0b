"""`buttons` of a WhatsApp text: quick replies and links, as WhatsApp's review accepts them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from channels.whatsapp_templates import (
    BUTTON_CHARACTERS_MAX,
    BUTTONS_MAX,
    PAYLOAD_CHARACTERS_MAX,
    URLS_MAX,
    TemplateButton,
)
from dispatcher.content.values import read_url

_KEYS = frozenset({"title", "payload", "url"})


def read_buttons(table: Mapping[str, Any]) -> tuple[TemplateButton, ...]:
    """The buttons of a WhatsApp table; those with a wrong form are left out, and `button_errors` names them."""
    rows = table.get("buttons")
    return tuple(
        TemplateButton(str(row.get("title", "")), str(row.get("payload", "")), str(row.get("url", "")))
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, Mapping)
    )


def button_errors(rows: object) -> Iterator[tuple[str, str]]:
    """What is wrong with the buttons, as (value, message)."""
    if rows is None:
        return
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        yield "", 'must be a list such as [{ title = "STOP", payload = "STOP" }]'
        return
    if len(rows) > BUTTONS_MAX or sum("url" in row for row in rows) > URLS_MAX:
        yield "", f"WhatsApp allows {BUTTONS_MAX} buttons, {URLS_MAX} of them with a url"
    titles = [str(row.get("title", "")) for row in rows]
    for title in {title for title in titles if titles.count(title) > 1}:
        yield title, "two buttons have this title"
    for row in rows:
        yield from _errors_of(row)


def _errors_of(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    title, payload, url = (row.get(key) for key in ("title", "payload", "url"))
    shown = str(title or "")
    for key in row.keys() - _KEYS:
        yield shown, f"unknown key {key}: a button has title, and payload or url"
    if not isinstance(title, str) or not title.strip() or len(title) > BUTTON_CHARACTERS_MAX:
        yield shown, f"title must be a text of at most {BUTTON_CHARACTERS_MAX} characters"
    elif "{{" in title:
        yield shown, "a title has no placeholder"
    if (payload is None) == (url is None):
        yield shown, "needs either payload, which comes back as a reply, or url"
    elif payload is not None and not (isinstance(payload, str) and 0 < len(payload) <= PAYLOAD_CHARACTERS_MAX):
        yield shown, f"payload must be a text of at most {PAYLOAD_CHARACTERS_MAX} characters"
    elif url is not None:
        try:
            read_url(url)
        except ValueError as error:
            yield shown, f"url {error}"
