"""Sphinx's settings: Markdown by MyST, the furo theme, and every warning an error (see the Makefile)."""

from __future__ import annotations

from pathlib import Path

from dispatcher import __version__

project = "dispatcher"
version = release = __version__
extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["README.md"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4  # a link to a heading that does not exist is a warning, and so an error

html_theme = "furo"
html_title = "dispatcher"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_last_updated_fmt = None
html_static_path = ["_static"] if Path(__file__).with_name("_static").is_dir() else []
html_css_files = ["site.css"] if html_static_path else []
pygments_style = "friendly"
