"""How many texts this process rendered along a compiled path, and how many with the template itself. For metrics."""

from __future__ import annotations


class RenderCounts:
    """Plain numbers: counted once per message, taken once per batch. A lost count where two threads meet is harmless."""

    compiled = 0
    by_template = 0


COUNTS = RenderCounts()


def take_render_counts() -> tuple[int, int]:
    """The counts since the last call: compiled, by template."""
    taken = COUNTS.compiled, COUNTS.by_template
    COUNTS.compiled = COUNTS.by_template = 0
    return taken
