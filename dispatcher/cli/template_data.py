"""The variables for a template, from a file."""

from __future__ import annotations

import json
from pathlib import Path

from dispatcher.intake.errors import BadInput, InputError, read_text
from dispatcher.intake.json_limits import is_utf8


def read_data(path: Path | None) -> dict[str, object]:
    """The variables of a JSON file; none without a file. Raises `BadInput`."""
    if path is None:
        return {}
    try:
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadInput(InputError(str(path), error.lineno, "", f"is not JSON: {error.msg}")) from None
    except RecursionError:
        raise BadInput(InputError(str(path), 1, "", "is nested too deeply")) from None
    except ValueError:  # Python converts no number of more than 4,300 digits
        raise BadInput(InputError(str(path), 1, "", "has a number of too many digits")) from None
    if not isinstance(data, dict):
        raise BadInput(InputError(str(path), 1, "", "should be a JSON object: variable -> value"))
    if not is_utf8(data):
        raise BadInput(InputError(str(path), 1, "", "has half a surrogate pair, such as \\ud800, which is no Unicode character"))
    return data
