"""The sentences of explanations: one TOML file per language, all with the same keys and the same placeholders."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from dispatcher.domain.recipient import LANGUAGES, Language


@cache
def messages(language: Language) -> dict[str, Any]:
    """The sentences in a language; in English for a language without a file."""
    name = language if language in LANGUAGES else "en"
    return tomllib.loads(resources.files("dispatcher.policy.explanations").joinpath(f"{name}.toml").read_text(encoding="utf-8"))
