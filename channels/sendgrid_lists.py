"""SendGrid's lists of suppressed addresses, by its API v3 (docs.sendgrid.com, "Suppressions").

Not read: `blocks`, because SendGrid goes on sending to these addresses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

from channels.base import ChannelError, Uncertain
from channels.http import HttpRequest, HttpResponse, HttpTransport
from channels.http_adapter import Clock, fetch
from channels.suppression_lists import ListedByProvider

LISTS: Mapping[str, str] = {  # our reason for each
    "unsubscribes": "opted_out",
    "spam_reports": "complained",
    "bounces": "bounced",
    "invalid_emails": "invalid_address",
}
PAGE_ROWS = 250  # SendGrid allows 500; `channels.http` reads answers of at most 1 MB, and a bounce may quote a long answer


def read_lists(
    http: HttpTransport, headers: tuple[str, ...], base_url: str, since: datetime | None, now: Clock
) -> Iterator[Sequence[ListedByProvider] | ChannelError]:
    """Yield the entries of all lists; see `channels.suppression_lists.SupportsSuppressionLists`."""
    until = now()  # what comes in meanwhile would move the pages
    for name, reason in LISTS.items():
        offset, previous = 0, b""
        while True:
            answer = fetch(http, HttpRequest(_url(base_url, name, since, until, offset), headers), now)
            if isinstance(answer, ChannelError):
                yield answer
                return
            page = _page(answer, reason) if answer.body != previous else Uncertain("same_page_again")
            yield page
            if isinstance(page, ChannelError):
                return
            if len(page) < PAGE_ROWS:
                break
            offset, previous = offset + PAGE_ROWS, answer.body


def _url(base_url: str, name: str, since: datetime | None, until: datetime, offset: int) -> str:
    times = {"end_time": int(until.timestamp())} | ({"start_time": int(since.timestamp())} if since else {})
    return f"{base_url.rstrip('/')}/v3/suppression/{name}?{urlencode({**times, 'limit': PAGE_ROWS, 'offset': offset})}"


def _page(answer: HttpResponse, reason: str) -> Sequence[ListedByProvider] | ChannelError:
    try:
        return [ListedByProvider(row["email"], reason, _time(row.get("created"))) for row in json.loads(answer.body)]
    except (ValueError, TypeError, KeyError, AttributeError):
        return Uncertain("unreadable")


def _time(created: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(created, UTC) if isinstance(created, int) else None
    except (ValueError, OverflowError, OSError):
        return None
