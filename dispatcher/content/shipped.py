"""The templates that come with the program, as package data: found from any working directory, in a checkout and in a wheel.

`dispatcher/templates` is a link to `templates/` of the repository; a wheel holds a copy of the files.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

SHARED = "_shared"  # layouts, macros, legal sentences and themes: what makes a folder a folder of templates


def shipped_folder() -> Path:
    """The folder of the shipped templates."""
    return Path(str(resources.files("dispatcher"))) / "templates"


def default_folder(here: Path) -> Path:
    """Where templates are if no setting says so: `templates` in the working directory if it is a folder of templates, else the
    shipped ones."""
    own = here / "templates"
    return own if (own / SHARED).is_dir() else shipped_folder()
