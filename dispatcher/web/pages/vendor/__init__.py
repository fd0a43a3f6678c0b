"""Files of other projects that pages load, unchanged. README.md names their versions, licences and hashes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent


@lru_cache
def read(name: str) -> bytes:
    """The content of a file."""
    return (FOLDER / name).read_bytes()
