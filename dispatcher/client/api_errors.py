"""The errors of the API's client.

ApiError
├── ApiRefusal      the API refused the call, and says why
├── ApiUnavailable  no answer, or none that could be used, after all attempts: repeat the call
└── FeedBroken      an event is missing or was changed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatcher.client.documents import FieldError


class ApiError(Exception):
    """A call did not succeed."""


class ApiRefusal(ApiError):
    """The API refused the call (status 4xx). Repeating it does not help.

    `detail` says why. `errors` has the wrong fields: `{"field": …, "message": …, "line": …}`; see the schema `Problem`.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.title: str = problem.get("title", "")
        self.detail: str = problem.get("detail", "")
        self.errors: list[FieldError] = problem.get("errors") or []
        fields = "; ".join(f"{_place(each)}: {each['message']}" for each in self.errors)
        super().__init__(f"{status} {self.title}: {self.detail}{f' ({fields})' if fields else ''}")


class ApiUnavailable(ApiError):
    """The API did not answer, or could not work now. Repeat the call: the same id, key or `Upload-Id` is accepted once."""


class FeedBroken(ApiError):
    """An event of the feed is missing, or was changed after it was written."""


def _place(error: FieldError) -> str:
    line = error.get("line")
    return f"line {line}, {error['field']}" if line else error["field"]
