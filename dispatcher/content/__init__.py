"""Message templates: load, check, render. Pure once loaded.

    catalog = load(Path("templates"))           # every fault of the folder at once, or all texts compiled
    content = catalog["loan_offer"].render(Letter(...))

A folder holds `_shared/` (mail layout, macros, `legal.toml`) and one folder per template: `template.toml`, and per
language `texts.toml`, `email.html`, `email.txt`.
"""

from channels.sms_segments import Segments, count_segments
from dispatcher.content.catalog import Catalog, check, load
from dispatcher.content.declaration import Variable
from dispatcher.content.errors import ContentRefusal, InvalidTemplates, TemplateError
from dispatcher.content.preview import example_request, preview
from dispatcher.content.render_request import MessageLinks, MessageSender, RenderRequest
from dispatcher.content.template import Template

__all__ = [
    "Catalog",
    "ContentRefusal",
    "InvalidTemplates",
    "MessageLinks",
    "MessageSender",
    "RenderRequest",
    "Segments",
    "Template",
    "TemplateError",
    "Variable",
    "check",
    "count_segments",
    "example_request",
    "load",
    "preview",
]
