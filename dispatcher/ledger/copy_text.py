"""Lines of COPY in text format (https://www.postgresql.org/docs/current/sql-copy.html).

To write them here is several times as fast as in the driver, which examines the type of each value.
"""

from __future__ import annotations

NULL = r"\N"
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def copy_text(value: str | None) -> str:
    """A text, or NULL. Also the text of any other type, such as a number, a moment or an array."""
    if value is None:
        return NULL
    return value if value.isprintable() and "\\" not in value else value.translate(_ESCAPES)


def copy_bytes(value: bytes | None) -> str:
    """A `bytea`, or NULL."""
    return NULL if value is None else rf"\\x{value.hex()}"
