"""Message templates: load, check, render. Pure once loaded.

    catalog = load(Path("templates"))           # compiles all texts, or raises one error that lists all faults
    content = catalog["loan_offer"].render(RenderRequest(...))

A folder holds `_shared/` (mail layout, macros, `legal.toml`, a theme per entity) and one folder per template:
`template.toml`, and per language `texts.toml`, `email.html`, `email.txt`.
"""

from channels.sms_segments import Segments, count_segments
from dispatcher.content.catalog import Catalog, check, load, load_version
from dispatcher.content.declaration import TemplateVariable
from dispatcher.content.errors import ContentRefusal, InvalidTemplates, TemplateError
from dispatcher.content.guard import host_of, is_within
from dispatcher.content.partner_links import partner_links
from dispatcher.content.preview import check_examples, check_links_to_partners, example_request, preview, sms_sizes
from dispatcher.content.render_request import LinkHosts, MessageLinks, MessageSender, RenderRequest
from dispatcher.content.template import Template
from dispatcher.content.themes import THEMES

__all__ = [
    "THEMES",
    "Catalog",
    "ContentRefusal",
    "InvalidTemplates",
    "LinkHosts",
    "MessageLinks",
    "MessageSender",
    "RenderRequest",
    "Segments",
    "Template",
    "TemplateError",
    "TemplateVariable",
    "check",
    "check_examples",
    "check_links_to_partners",
    "count_segments",
    "example_request",
    "host_of",
    "is_within",
    "load",
    "load_version",
    "partner_links",
    "preview",
    "sms_sizes",
]
