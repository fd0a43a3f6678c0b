"""Names of people as they are typed. Pure: standard library only."""

from __future__ import annotations

import unicodedata


def is_same_name(one: str, other: str) -> bool:
    """Whether two names are the same but for case, blanks and forms of Unicode: "Jana Maes" is " jana  MAES", too.

    Templates name their author in words, and former versions recorded people by name: who adds a blank to a name is not a second
    person.
    """
    return _folded(one) == _folded(other)


def _folded(name: str) -> str:
    visible = "".join(each for each in unicodedata.normalize("NFKC", name) if unicodedata.category(each) != "Cf")
    return unicodedata.normalize("NFKC", " ".join(visible.split()).casefold())
