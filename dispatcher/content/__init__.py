"""Message templates: load, check, render. Pure once loaded.

    catalog = load(Path("templates"))           # compiles all texts, or raises one error that lists all faults
    content = catalog["loan_offer"].render(RenderRequest(...))

A folder holds `_shared/` (mail layout, macros, `legal.toml`, a theme per entity) and one folder per template:
`template.toml`, and per language `texts.toml`, `email.html`, `email.txt`.
"""

from channels.sms_segments import Segments, count_segments
from dispatcher.content.catalog import Catalog, FolderReport, check, inspect, load, load_sound, load_version, read_folder
from dispatcher.content.declaration import TemplateVariable
from dispatcher.content.draft_marks import is_draft, texts_to_write
from dispatcher.content.errors import ContentRefusal, InvalidTemplates, TemplateError
from dispatcher.content.links import host_of, is_within
from dispatcher.content.partner_links import partner_links
from dispatcher.content.preview import check_examples, check_links_to_partners, example_request, sms_sizes
from dispatcher.content.render_counts import take_render_counts
from dispatcher.content.render_request import NO_SENDERS, LinkHosts, MessageLinks, MessageSender, RenderRequest, Senders
from dispatcher.content.shipped import SHARED, default_folder, shipped_folder
from dispatcher.content.skeleton import NewTemplate, skeleton
from dispatcher.content.template import Template
from dispatcher.content.themes import THEMES
from dispatcher.content.wording_diff import TextDiff, WordChange, differences, word_changes

__all__ = [
    "NO_SENDERS",
    "SHARED",
    "THEMES",
    "Catalog",
    "ContentRefusal",
    "FolderReport",
    "InvalidTemplates",
    "LinkHosts",
    "MessageLinks",
    "MessageSender",
    "NewTemplate",
    "RenderRequest",
    "Segments",
    "Senders",
    "Template",
    "TemplateError",
    "TemplateVariable",
    "TextDiff",
    "WordChange",
    "check",
    "check_examples",
    "check_links_to_partners",
    "count_segments",
    "default_folder",
    "differences",
    "example_request",
    "host_of",
    "inspect",
    "is_draft",
    "is_within",
    "load",
    "load_sound",
    "load_version",
    "partner_links",
    "read_folder",
    "shipped_folder",
    "skeleton",
    "sms_sizes",
    "take_render_counts",
    "texts_to_write",
    "word_changes",
]
