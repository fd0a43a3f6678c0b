"""The gallery of the shipped templates: a contact sheet of each, in all languages. A part of `make screenshots`.

The sheets show the same previews as the console and the workbench.
"""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

from markupsafe import Markup
from playwright.sync_api import Browser, Page

from channels.base import Channel
from dispatcher.content import Template, load, shipped_folder
from dispatcher.content.message_views import WIDTHS, with_scheme
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.policy import Policy, parse, shipped
from dispatcher.runtime.template_previews import MessagePreview, message_preview, selections
from dispatcher.web.pages.workbench import STYLE, from_text

FOLDER = Path(__file__).parent / "images" / "templates"
WIDTH = 1180  # of a sheet, in CSS pixels
SCALE = 1.0  # pixels of the picture for each
QUALITY = 45  # of WebP: ten sheets take little more than three megabytes
# The logos of the shipped themes are placeholders at addresses that do not exist.
LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="132" height="40"><rect width="132" height="40" rx="6" fill="#fff"/>'
    '<text x="66" y="27" text-anchor="middle" font-family="sans-serif" font-size="18" fill="#003768">logo</text></svg>'
)
_PICTURE = re.compile(r'(?<=\s)src="https://[^"]*"')
SHEET = """\
{% from "previews.html" import sms, push, whatsapp %}
<!doctype html><html lang="en"><head><meta charset="utf-8"><style>{{ style }}
body { padding: 1.2rem; color-scheme: light; }
.glass { --scale: .45; height: 40rem; } .glass iframe { height: calc(40rem / var(--scale)); }
.frames { flex-wrap: nowrap; margin-bottom: 1.2rem; }
.row { display: grid; grid-template-columns: 15rem 20rem 1fr; gap: 1.4rem; margin-bottom: 2rem; }
.screens { grid-template-columns: 1fr; } .screen:nth-child(2), .screen:nth-child(4) { display: none; } h2 { margin-top: .4rem; }
</style></head><body><h1>{{ template.name }}</h1>
{% for language, messages in sheets %}
<h2>{{ language }} <small>{{ mode }}</small></h2>
<div class="frames">
{% for scheme in ("light", "dark") %}{% for name, width in widths %}
<figure class="frame {{ name }}"><figcaption>{{ name }}, {{ scheme }}</figcaption>
<div class="glass"><iframe title="" srcdoc="{{ shown_mail(messages["email"].email.html, scheme) }}"></iframe></div></figure>
{% endfor %}{% endfor %}
</div>
<div class="row">
<div>{% if "push" in messages %}{{ push(messages["push"]) }}{% endif %}</div>
<div>{% if "sms" in messages %}{{ sms(messages["sms"]) }}{% endif %}</div>
<div>{% if "whatsapp" in messages %}{{ whatsapp(messages["whatsapp"], "") }}{% endif %}</div>
</div>
{% endfor %}
</body></html>
"""


def sheet(policy: Policy, template: Template) -> str:
    """The HTML of a contact sheet: tailored where the template has that, else standard."""
    mode = sorted(template.info.modes)[-1]
    sheets = [(language, _messages(policy, template, language, mode)) for language in LANGUAGES]
    values = {
        "style": Markup(STYLE),  # noqa: S704  our own file
        "template": template,
        "mode": mode,
        "sheets": sheets,
        "widths": WIDTHS,
    }
    return from_text(SHEET, **values, shown_mail=shown_mail)


def _messages(policy: Policy, template: Template, language: str, mode: str) -> dict[Channel, MessagePreview]:
    chosen = selections(template, language=language, mode=mode)
    return {each.channel: message_preview(policy, template, each) for each in chosen}


def write_gallery(browser: Browser) -> None:
    """Write a sheet of each shipped template."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    policy = parse(shipped(), "policy.toml")
    for name, template in load(shipped_folder()).items():
        page = browser.new_context(viewport={"width": WIDTH, "height": 900}, color_scheme="light").new_page()
        page.set_content(sheet(policy, template))
        page.wait_for_timeout(300)  # the frames are drawn
        size = _take(page, FOLDER / f"{name}.webp")
        page.context.close()
        sys.stdout.write(f"{name}: {size:,} bytes\n")


def shown_mail(html: str, scheme: str) -> str:
    """A mail as a frame shows it, with a picture in place of the logo."""
    return with_scheme(_PICTURE.sub(f'src="data:image/svg+xml;base64,{base64.b64encode(LOGO.encode()).decode()}"', html), scheme)


def _take(page: Page, path: Path) -> int:
    """A picture of the whole page as WebP, which Playwright itself does not write."""
    height = page.evaluate("document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": SCALE}
    options = {"format": "webp", "quality": QUALITY, "captureBeyondViewport": True, "clip": clip}
    answer = page.context.new_cdp_session(page).send("Page.captureScreenshot", options)
    return path.write_bytes(base64.b64decode(answer["data"]))
