"""WhatsApp templates of the sandbox: what was created, and what "WhatsApp" decided about each.

With a file they survive a restart: a dispatcher remembers their ids.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

UNSUBMITTED, APPROVED, PAUSED = "unsubmitted", "approved", "paused"
STATUSES = (UNSUBMITTED, "received", "pending", APPROVED, "rejected", PAUSED, "disabled")


@dataclass(frozen=True, slots=True)
class Review:
    """What WhatsApp's review answers to the next submissions."""

    status: str = APPROVED
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StoredContent:
    """One content of an account. `types` is as Twilio's API has it; `approval_name` is the name in the approval request."""

    sid: str
    account: str
    name: str
    language: str
    types: Mapping[str, Any]
    variables: Mapping[str, str] = field(default_factory=dict)
    status: str = UNSUBMITTED
    category: str = ""
    reason: str = ""
    approval_name: str = ""
    created_at: float = 0.0

    @property
    def text(self) -> str:
        """The body, with placeholders."""
        return next((str(content["body"]) for content in self.types.values() if "body" in content), "")

    @property
    def placeholders_max(self) -> int:
        """The highest number of a placeholder."""
        return max((int(name) for name in self.variables if name.isdecimal()), default=0)


class ContentStore:
    """All contents, by ContentSid."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._contents: dict[str, StoredContent] = {}
        self.review = Review()
        if path is not None and path.exists():
            rows = json.loads(path.read_text(encoding="utf-8"))
            self._contents = {row["sid"]: StoredContent(**row) for row in rows}

    def __iter__(self) -> Iterator[StoredContent]:
        return iter(self._contents.values())

    def get(self, sid: str) -> StoredContent | None:
        return self._contents.get(sid)

    def put(self, content: StoredContent) -> None:
        self._contents[content.sid] = content
        self._save()

    def change(self, sid: str, **changes: Any) -> StoredContent:
        """Change a content. Raises KeyError."""
        content = replace(self._contents[sid], **changes)
        self.put(content)
        return content

    def delete(self, sid: str) -> bool:
        """Delete a content; False if there is none."""
        deleted = self._contents.pop(sid, None) is not None
        self._save()
        return deleted

    def set_text(self, sid: str, text: str) -> None:
        """Put an approved content with this text, for tests that need no review."""
        self.put(StoredContent(sid, "", "", "", {"twilio/text": {"body": text}}, status=APPROVED))

    def _save(self) -> None:
        if self._path is None:
            return
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps([asdict(content) for content in self]), encoding="utf-8")
        os.replace(draft, self._path)  # noqa: PTH105  the same as the other files of the sandbox


def refusal_code(content: StoredContent | None) -> int | None:
    """The code with which WhatsApp refuses a template that it has not approved; None for an approved one.

    63027: no such template in this language. 63041: paused. 63016: outside the service window only an approved template is sent.
    """
    if content is None:
        return 63027
    if content.status == APPROVED:
        return None
    return 63041 if content.status == PAUSED else 63016
