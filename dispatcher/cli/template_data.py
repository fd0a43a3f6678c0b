"""The variables for a template, from a file."""

from __future__ import annotations

import json
from pathlib import Path

from dispatcher.intake.errors import BadInput, InputError, read_text


def read_data(path: Path | None) -> dict[str, object]:
    """The variables of a JSON file; none without a file. Raises `BadInput`."""
    if path is None:
        return {}
    try:
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadInput(InputError(str(path), error.lineno, "", f"is not JSON: {error.msg}")) from None
    if not isinstance(data, dict):
        raise BadInput(InputError(str(path), 1, "", "should be a JSON object: variable -> value"))
    return data
