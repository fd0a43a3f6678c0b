"""The workbench's pages: always escaped; an undefined variable is an error. They share previews and style with the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent
PREVIEWS = FOLDER.parent / "previews"
SCRIPT = (FOLDER / "workbench.js").read_text(encoding="utf-8")
STYLE = "\n".join(
    path.read_text(encoding="utf-8")
    for path in (FOLDER.parent / "console" / "style.css", PREVIEWS / "previews.css", FOLDER / "workbench.css")
)


def page(name: str, **values: Any) -> str:
    """A page by its file's name."""
    return _environment.get_template(name).render(values)


def from_text(source: str, **values: Any) -> str:
    """A page from its source; it may use the previews."""
    return _environment.from_string(source).render(values)


_environment = Environment(
    loader=FileSystemLoader([FOLDER, PREVIEWS]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals["_"] = str  # the previews, which the console shows in four languages, are in English here
