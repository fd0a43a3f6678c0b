"""The linter of templates: forty faults, each found with its code, file and line, and none in templates without faults."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import jsonschema
import pytest

from dispatcher import policy
from dispatcher.content import load
from dispatcher.content.lint.findings import LintFinding, Severity, lint_rules
from dispatcher.content.lint.sarif import sarif
from dispatcher.runtime.template_lint import blocking, lint_folder, lint_version
from tests.support.sound_templates import GREETING, sound_folder
from tests.support.template_folder import write

POLICY = policy.parse(policy.shipped())
SHIPPED = Path(__file__).parents[2] / "templates"
REMOVED = "removed"  # in place of a whole file
NL, FR, TEXTS, TEXT = "offer/nl/email.html", "offer/fr/email.html", "offer/nl/texts.toml", "offer/nl/email.txt"
LAYOUT, MACROS, DECLARATION = "_shared/layout.html", "_shared/macros.html", "offer/template.toml"
BUTTON = '{{ button(offer_url, "Bereken je lening") }}'
HOME, LINK = "https://www.bank.example/home", '<a class="link" style="color:#1f5673" href="'
UNSUBSCRIBE = '<a class="link" href="{{ links.unsubscribe }}" style="color:#1f5673">{% block ways_out %}{% endblock %}</a>'
EXAMPLE = """\
<p>Kredietbedrag € 1.500, JKP 5,49 %, debetrentevoet 5,49 %, looptijd 48 maanden, maandaflossing € 231,91.</p>
"""

HARMLESS = """\
<p>Open tot 18 u. Kies a.u.b. menu's, zoals je wilt, op www.bank.example/u/home.</p>
<p>Tot 31 maart 2027 regel je alles 100 % online. De KBC IBAN BIC staan op je kaart! Zo zei hij: <i lang="fr">à bientôt</i>.</p>
<p>LONG</p>
<img src="https://www.bank.example/line.png" width="600" height="1" alt="">
<img src="https://www.bank.example/kitchen.png" width="600" height="200" alt="Foto van een keuken">
<div style="background-image:url(https://www.bank.example/wave.png); width:600px; height:90px"></div>
<p>Een derde (1/3) van de 24/7 hulplijn is er op 02/303.31.12.</p>
<p><a class="link" style="color:#1f5673" href="https://www.bank.example/home">Ga naar www.bank.example</a></p>
<p>Bel <a class="link" style="color:#1f5673" href="tel:+3223033112">02 303 31 12</a> of 112, of schrijf naar
<a class="link" style="color:#1f5673" href="mailto:info@bank.example?subject=Hulp">info@bank.example</a>.</p>
<p style="text-transform:uppercase">Goed om weten</p>
<p>Geef je pincode nooit door. Op woensdag 31 maart 2027 stopt de actie. Vraag [na te lezen]; 5 * 3 * 2; R&amp;D.</p>
<p>Lees <a class="link" style="color:#1f5673; text-decoration:none; border-bottom:1px solid"
href="https://www.bank.example/home">Ga naar www.bank.example</a>.</p>
"""

UNUSED = '[variables.city]\ncategory = "product"\nexample = "x"\n[variables.amount]'

Case = tuple[str, str, str, str, int]
FAULTS: dict[str, Case] = {  # what is wrong: code, file, original text, replacement, line of the finding
    "a file with a mistyped name": ("T001", "offer/nl/emial.txt", "", "x", 1),
    "an unknown key": ("T002", DECLARATION, 'product = "loan"', 'produkt = "loan"', 9),
    "an undeclared variable": ("T003", NL, "KBC{% endif %}", "{{ nam }}{% endif %}", 6),
    "a script": ("T004", NL, "<h2>", "<script>x</script><h2>", 7),
    "a variable that may be absent": ("T005", TEXTS, 'title = "', 'title = "{{ first_name }} ', 2),
    "the name in a link": ("T006", NL, BUTTON, '<a href="https://www.bank.example/{{ first_name }}">Mijn lening</a>', 8),
    "an entity that the policy does not know": ("T007", DECLARATION, "kbc-bank", "kbc-bnak", 4),
    "a picture without alt text": ("T101", NL, "<h2>", '<img src="https://www.bank.example/a.png"><h2>', 7),
    "click here": ("T102", NL, '"Bereken je lening"', '"Klik hier!"', 8),
    "a link without text": (
        "T103",
        NL,
        BUTTON,
        '<a href="{{ offer_url }}"><img src="https://www.bank.example/a.png" alt=""></a>',
        8,
    ),
    "light grey on white": ("T104", NL, "<h2>", '<p style="color:#cccccc">grijs</p><h2>', 7),
    "a class with little contrast": ("T104", NL, "<h2>", '<p class="pale">grijs</p><h2>', 7),
    "too dark in the dark scheme": ("T104", MACROS, 'class="link" ', "", 2),
    "a heading that leaves a level out": ("T105", NL, "<h2>Een lening voor je plannen</h2>", "<h4>Een lening</h4>", 7),
    "no language": ("T106", LAYOUT, ' lang="{{ language }}"', "", 2),
    "a layout table without its role": ("T107", LAYOUT, '<table role="presentation"', "<table", 12),
    "a small text": ("T108", NL, "<h2>", '<p style="font-size:9px">klein</p><h2>', 7),
    "a table of data without headers": ("T109", NL, "<h2>", "<table><caption>K</caption><tr><td>1</td></tr></table><h2>", 7),
    "a subject that phones cut": ("T209", TEXTS, 'subject = "', 'subject = "Bekijk het eens rustig: ', 7),
    "no title": ("T110", LAYOUT, "<title>{% block title %}{% endblock %}</title>", "", 2),
    "a mail of 120 kB": ("T201", NL, "<h2>", f"<p>{'lang ' * 24_000}</p><h2>", 1),
    "pictures and no text": ("T202", NL, "<h2>", '<img src="https://www.bank.example/a.png" alt="A"><h2>', 1),
    "a URL shortener": ("T203", NL, BUTTON, '<a href="https://bit.ly/3x">Bereken je lening</a>', 8),
    "a shortener in an SMS": ("T203", TEXTS, "{{ offer_url }} {{ warning }}", "https://bit.ly/3x {{ warning }}", 11),
    "an IP address": ("T204", NL, BUTTON, '<a href="https://192.0.2.7/x">Bereken je lening</a>', 8),
    "a host shown that is not that of the link": ("T205", NL, '"Bereken je lening"', '"www.kbc-bank.example"', 8),
    "words of spam": ("T206", TEXTS, 'subject = "', 'subject = "Laatste kans: ', 7),
    "a row of exclamation marks": ("T206", TEXTS, 'title = "Een lening', 'title = "Een lening!!!', 2),
    "no preheader in the layout": ("T207", LAYOUT, "{% block preheader %}{% endblock %}", "", 10),
    "a long subject": ("T208", TEXTS, 'subject = "', f'subject = "{"Lang " * 12}', 7),
    "a tracking pixel": ("T210", NL, "<h2>", '<img src="https://www.bank.example/o.png" width="1" height="1" alt=""><h2>', 7),
    "a host that is one number": ("T204", NL, BUTTON, '<a href="https://2130706433/x">Bereken je lening</a>', 8),
    "a link with blanks only": ("T103", NL, BUTTON, '<a href="{{ offer_url }}">&nbsp;&zwnj;</a>', 8),
    "a file name as alt text": ("T101", NL, "<h2>", '<img src="https://www.bank.example/k.jpg" alt="k.jpg"><h2>', 7),
    "a picture that is hidden": (
        "T210",
        NL,
        "<h2>",
        '<img src="https://www.bank.example/k.jpg" alt="" style="display:none"><h2>',
        7,
    ),
    "a subject like that of a reply": ("T206", TEXTS, 'subject = "', 'subject = "Re: ', 7),
    "an id that occurs twice": ("T111", NL, "<h2>", '<p id="a">Een</p><p id="a">Twee</p><h2>', 7),
    "an unsubscribe link that does not say so": ("T308", LAYOUT, "{% block ways_out %}{% endblock %}</a>", "Tot ziens</a>", 22),
    "http": ("T301", NL, BUTTON, '<a href="http://www.bank.example/">Bereken je lening</a>', 8),
    "a host of another": ("T302", NL, BUTTON, '<a href="https://www.bnak.example/">Bereken je lening</a>', 8),
    "an empty link": ("T303", NL, BUTTON, '<a href="#">Bereken je lening</a>', 8),
    "an anchor that is not there": ("T304", NL, BUTTON, '<a href="#voorwaarden">Voorwaarden</a>', 8),
    "an unsubscribe link for Outlook only": ("T305", LAYOUT, UNSUBSCRIBE, f"<!--[if mso]>{UNSUBSCRIBE}<![endif]-->", 22),
    "an unsubscribe link hidden by a media query": ("T305", LAYOUT, ".wide { width: 100% }", ".link { display: none }", 22),
    "an unsubscribe link in white on white": (
        "T305",
        LAYOUT,
        'style="color:#1f5673">{% block ways',
        'style="color:#fefefe">{% block ways',
        22,
    ),
    "a query in a link to a partner": ("T306", NL, BUTTON, '<a href="https://tickets.train.example/?c=7">Naar de trein</a>', 8),
    "a link to a partner that data chooses": (
        "T307",
        NL,
        BUTTON,
        "<a href=\"https://train.example/weekend{% if first_name == 'Ann' %}/coast{% endif %}\">Naar de trein</a>",
        8,
    ),
    "data completes the path to a partner": (
        "T307",
        NL,
        BUTTON,
        '{{ button("https://tickets.train.example/week" ~ ("end" if first_name else ""), "Naar de trein") }}',
        8,
    ),
    "the length of a name in a link to a partner": (
        "T307",
        NL,
        BUTTON,
        '{{ button("https://tickets.train.example/" ~ ((first_name or "") | length), "Naar de trein") }}',
        8,
    ),
    "a list of paths to a partner": (
        "T307",
        NL,
        BUTTON,
        '{{ button("https://tickets.train.example/" ~ ["coast", "city"][(first_name or "x") < "M"], "Naar de trein") }}',
        8,
    ),
    "a macro that chooses a link to a partner": (
        "T307",
        NL,
        BUTTON,
        (
            "{% macro where(who) %}https://tickets.train.example/{% if who %}coast{% endif %}{% endmacro %}"
            "{{ button(where(first_name), 'Naar de trein') }}"
        ),
        8,
    ),
    "a host without a scheme, continued by data": (
        "T307",
        TEXTS,
        "{{ offer_url }} {{ warning }}",
        "tickets.train.example/{{ 'coast' if first_name else 'city' }} {{ warning }}",
        11,
    ),
    "a variable set by data in a link to a partner": (
        "T307",
        NL,
        BUTTON,
        (
            "{% set place = 'coast' %}{% if first_name %}{% set place = 'city' %}{% endif %}"
            "{{ button('https://tickets.train.example/' ~ place, 'Naar de trein') }}"
        ),
        8,
    ),
    "no sender in the text part": ("T401", TEXT, "{{ sender.name }}", "", 1),
    "no advertising mark": ("T402", TEXT, "Reclame\n", "", 1),
    "no unsubscribe link in the text part": ("T403", TEXT, "{{ links.unsubscribe }}", "", 1),
    "no unsubscribe link in an SMS": ("T403", TEXTS, " {{ links.unsubscribe }}", "", 11),
    "no credit warning in a push": ("T404", TEXTS, " {{ warning }}", "", 3),
    "a credit warning that is not shown": ("T405", LAYOUT, "font-size:18px", "display:none", 19),
    "a credit warning hidden on phones": ("T405", LAYOUT, ".wide { width: 100% }", ".notice { display: none !important }", 19),
    "a credit warning in white on white": ("T405", LAYOUT, "font-size:18px", "font-size:18px; color:white", 19),
    "a credit warning hidden under @supports": (
        "T405",
        LAYOUT,
        "@media (max-width: 480px) { .wide { width: 100% } }",
        "@supports (display: block) { .notice { display: none !important } }",
        19,
    ),
    "a credit warning hidden in Outlook's dark scheme": (
        "T405",
        LAYOUT,
        ".muted {",
        "[data-ogsc] .notice { display: none } .muted {",
        19,
    ),
    "a credit warning in the size of a pixel or three": ("T405", LAYOUT, "font-size:18px", "font-size:clamp(1px,1vw,1.5px)", 19),
    "a credit warning at an opacity of 0.05": ("T405", LAYOUT, "font-size:18px", "font-size:18px; opacity:.05", 19),
    "a credit warning that is scaled away": ("T405", LAYOUT, "font-size:18px", "font-size:18px; transform:scale(.01)", 19),
    "a credit warning of letters that cover each other": (
        "T405",
        LAYOUT,
        "font-size:18px",
        "font-size:18px; letter-spacing:-1em",
        19,
    ),
    "a credit warning of lines that cover each other": ("T405", LAYOUT, "font-size:18px", "font-size:18px; line-height:0", 19),
    "a credit warning in black on the dark page": ("T405", LAYOUT, "font-size:18px", "font-size:18px; color:#000", 19),
    "a credit warning in a hidden element": ("T405", LAYOUT, "{{ warning }}</p>", "<span hidden>{{ warning }}</span></p>", 19),
    "an unsubscribe link hidden under @supports": (
        "T305",
        LAYOUT,
        "@media (max-width: 480px) { .wide { width: 100% } }",
        "@supports (display: block) { .link { display: none } }",
        22,
    ),
    "a translucent text": ("T104", NL, "<h2>", '<p style="opacity:.25">grijs</p><h2>', 7),
    "grey on the dark page": ("T104", NL, "<h2>", '<p style="color:#767676">grijs</p><h2>', 7),
    "a small credit warning": ("T406", LAYOUT, "font-size:18px", "font-size:14px", 19),
    "a representative example without the total": ("T407", NL, "<h2>", f"{EXAMPLE}<h2>", 7),
    "a variable that one language lacks": ("T501", "offer/fr/texts.toml", "{{ amount | money }} {{ offer", "1 500 € {{ offer", 11),
    "another amount in one language": ("T502", "offer/fr/texts.toml", 'title = "', 'title = "20 €. ', 2),
    "a digit beside an amount": ("T502", TEXTS, "{{ amount | money }} {{ offer", "{{ amount | money }}0 {{ offer", 11),
    "another day in one language": ("T502", "offer/fr/texts.toml", 'title = "', 'title = "Le 3 mars 2027. ', 2),
    "another day in the text part": ("T503", TEXT, "Leen tot", "Tot 3 maart 2027 leen je", 2),
    "a text part that contradicts the HTML": ("T503", TEXT, "{{ amount | money }}", "€ 1.400", 2),
    "a link that only the HTML has": ("T504", NL, BUTTON, '{{ button("https://www.bank.example/home", "Bereken je lening") }}', 8),
    "no text part": ("T507", TEXT, sound_folder()[TEXT], REMOVED, 1),
    "a variable that only the HTML uses": ("T506", TEXT, GREETING, "KBC", 6),
    "another page in one language": (
        "T505",
        FR,
        '{{ button(offer_url, "Calculez',
        '{{ button("https://www.bank.example/lone", "Calculez',
        8,
    ),
    "an English text in the folder nl": (
        "T508",
        NL,
        "Leen tot",
        "Borrow up to the amount that you need for your plans, at the rate of",
        6,
    ),
    "a button in one language only": (
        "T509",
        TEXTS,
        'approved = "Info',
        'buttons = [{ title = "STOP", payload = "STOP" }]\napproved = "Info',
        15,
    ),
    "a plural after any number": ("T605", NL, "<h2>", "<p>{{ coins | number }} Kate Coins</p><h2>", 7),
    "a variable that no text uses": (
        "T601",
        DECLARATION,
        "[variables.amount]",
        UNUSED,
        21,
    ),
    "a macro with data of tailored messages": (
        "T602",
        NL,
        "<h2>",
        "{% macro plan() %}{{ history }}{% endmacro %}{{ plan() }}<h2>",
        7,
    ),
    "a category that the policy does not have": ("T603", DECLARATION, 'category = "transactions"', 'category = "transaction"', 17),
    "an alt text that says nothing": ("T101", NL, "<h2>", '<img src="https://www.bank.example/a.png" alt="Foto"><h2>', 7),
    "an alt text that a camera gave": ("T101", NL, "<h2>", '<img src="https://www.bank.example/a.png" alt="IMG_2034"><h2>', 7),
    "a mail that says another language": ("T106", LAYOUT, '<body class="page"', '<body lang="fr" class="page"', 10),
    "a shortener in a WhatsApp value": ("T203", TEXTS, '3 = "{{ offer_url }}"', '3 = "https://bit.ly/x"', 18),
    "a shortener without its scheme": ("T203", TEXT, "{{ offer_url }}", "\nbit.ly/x {{ offer_url }}", 4),
    "a host among the words of a link": (
        "T205",
        NL,
        BUTTON,
        '<a class="link" style="color:#1f5673" href="https://tickets.train.example/w">Ga naar www.bank.example</a>',
        8,
    ),
    "a sentence in capitals": ("T206", NL, "<h2>", "<p>PROFITEER NU SNEL VAN DIT AANBOD</p><h2>", 7),
    "exclamation marks with blanks": ("T206", TEXTS, 'title = "', 'title = "Nu ! ! ! ', 2),
    "a preheader like the subject": (
        "T207",
        TEXTS,
        'preheader = "Bereken je lening',
        'preheader = "Een lening voor je plannen.',
        8,
    ),
    "a tracking pixel in a style": (
        "T210",
        NL,
        "<h2>",
        '<div style="background-image:url(https://www.bank.example/o.gif); width:1px; height:1px"></div><h2>',
        7,
    ),
    "no sender in a WhatsApp text": ("T401", TEXTS, '1 = "{{ sender.name }}"', '1 = "Ann"', 15),
    "a rate in words": ("T407", NL, "<h2>", "<p>Nu aan 5,49 procent.</p><h2>", 7),
    "a cost without the example": ("T407", TEXTS, 'body = "', 'body = "€ 99 per maand. ', 3),
    "a day in digits in one language": ("T502", TEXTS, 'title = "', 'title = "Tot 31/03/2027. ', 2),
    "another amount than in the mail": ("T510", TEXTS, 'title = "', 'title = "€ 25. ', 2),
    "a French subject in the folder nl": (
        "T508",
        TEXTS,
        'subject = "Een lening voor je plannen',
        'subject = "Un crédit pour vos projets',
        7,
    ),
    "an English sentence in a WhatsApp text": (
        "T508",
        TEXTS,
        'approved = "Info {{1}}',
        'approved = "With this loan you have what you need for your plans. Info {{1}}',
        15,
    ),
    "a STOP button in one mode only": (
        "T509",
        TEXTS,
        'approved = "Info',
        'buttons = [{ title = "STOP", payload = "STOP" }]\napproved = "Info',
        22,
    ),
    "a button that says STOP and sends something else": (
        "T509",
        TEXTS,
        'approved = "Info',
        'buttons = [{ title = "Stop", payload = "HALT" }]\napproved = "Info',
        15,
    ),
    "a button that does not say that it ends messages": (
        "T509",
        TEXTS,
        'approved = "Info',
        'buttons = [{ title = "Bekijken", payload = "STOP" }]\napproved = "Info',
        15,
    ),
    "one form for one and many": (
        "T605",
        NL,
        "<h2>",
        '<p>{{ amount | money }} {{ amount | plural("Kate Coins", "Kate Coins") }}</p><h2>',
        7,
    ),
    "a bold text without an end": ("T607", NL, "<h2>", "<p><strong>Alleen vandaag</p><h2>", 7),
    "an end without a beginning": ("T607", NL, "<h2>", "</em><h2>", 7),
    "a text outside the blocks": ("T606", NL, "{% block headline %}", "<p>Nog iets</p>\n{% block headline %}", 4),
    "a block that the layout does not have": (
        "T606",
        NL,
        "{% block headline %}",
        "{% block bodi %}<p>Nog iets</p>{% endblock %}\n{% block headline %}",
        4,
    ),
    "a macro that nothing calls": (
        "T606",
        NL,
        "{% block headline %}",
        "{% macro more() %}<p>Nog iets</p>{% endmacro %}\n{% block headline %}",
        4,
    ),
    "an unknown mode": ("T002", DECLARATION, '["tailored", "standard"]', '["tailord", "standard"]', 6),
    "a mode that no text can have": ("T002", DECLARATION, '["tailored", "standard"]', '["tailored", "none"]', 6),
    "modes that are no list": ("T002", DECLARATION, '["tailored", "standard"]', '"tailored"', 6),
    "an unknown mode of a variable": ("T002", DECLARATION, 'modes = ["tailored"]', 'modes = ["tailord"]', 18),
    "an unknown type of a variable": ("T002", DECLARATION, '"money"', '"mony"', 23),
    "a mistyped category": ("T603", DECLARATION, 'category = "identity"', 'category = "identiti"', 12),
    "a category in capitals": ("T002", DECLARATION, 'category = "identity"', 'category = "Identity"', 12),
    "a mistyped table of a WhatsApp text": ("T002", TEXTS, "[whatsapp.tailored]", "[whatsapp.tailord]", 13),
    "an amount without its filter": ("T608", NL, "{{ amount | money }}", "{{ amount }}", 6),
    "an amount that a macro shows without its filter": ("T608", NL, '"Bereken je lening"', "amount", 8),
    "an amount in an SMS without its filter": ("T608", TEXTS, "{{ amount | money }} {{ offer", "{{ amount }} {{ offer", 11),
    "a WhatsApp value without its filter": ("T608", TEXTS, '2 = "{{ amount | money }}"', '2 = "{{ amount }}"', 17),
    "an amount with the filter of a number": ("T608", TEXT, "{{ amount | money }}", "{{ amount | number }}", 2),
    "a date without its filter": ("T608", NL, "<h2>", "<p>{{ until }}</p><h2>", 7),
    "a name with the filter of an amount": ("T608", TEXT, ", {{ project }}", ", {{ project | money }}", 2),
    "a filter that does not exist, in a condition": ("T003", TEXT, ", {{ project }}", ", {{ project | uper }}", 2),
    "an if without its end": ("T003", TEXT, ", {{ project }}{% endif %}", ", {{ project }}", 2),
    "a block without its end": ("T003", NL, "{% endblock %}\n{% block ways_out", "{% block ways_out", 5),
    "a for without its end": ("T003", NL, "<h2>", '{% for each in ["a"] %}<h2>', 7),
    "a macro without its end": ("T003", NL, "{% block headline", "{% macro more() %}\n{% block headline", 4),
    "a macro of the shared files without its end": ("T003", MACROS, "{% endmacro %}\n", "", 1),
    "an if in a subject without its end": ("T003", TEXTS, 'subject = "', "subject = \"{% if mode == 'tailored' %}", 7),
    "an endif without its if": ("T003", TEXT, ", {{ project }}{% endif %}", ", {{ project }}{% endif %}{% endif %}", 2),
    "an outer if without its end": ("T003", NL, "<h2>", "{% if amount %}\n{% if project %}x{% endif %}\n<h2>", 7),
    "an inner if without its end": ("T003", NL, "<h2>", "{% if amount %}\n<p>a{% if project %}x</p>\n{% endif %}\n<h2>", 8),
    "a fixed amount in a macro's argument": ("T502", NL, '"Bereken je lening"', '"Leen € 25.000"', 8),
    "an example in place of its variable": ("T501", FR, "{{ amount | money }}", "1 500 €", 6),
    "a push title that phones cut": (
        "T211",
        TEXTS,
        'title = "',
        'title = "Bekijk het eens rustig bij een kop koffie in je kantoor: ',
        2,
    ),
    "a push title that a huge amount makes too long": (
        "T211",
        TEXTS,
        'title = "',
        'title = "Leen nu tot {{ amount | money }} of misschien wat meer: ',
        2,
    ),
    "a push body that phones cut": ("T211", TEXTS, 'body = "', f'body = "{"Leen rustig en met verstand. " * 5}', 3),
    "the Dutch u": ("T512", NL, '"Bereken je lening"', '"Bereken uw lening"', 8),
    "the French tu": ("T512", FR, "<h2>", "<p>Crédit : choisis, et on t’aide.</p><h2>", 7),
    "the German du": ("T512", "offer/de/texts.toml", 'preheader = "', 'preheader = "Für dich: ', 8),
    "the German ihr": ("T512", "offer/de/email.txt", "Werbung", "Werbung\nWas könnt ihr tun?", 2),
    "the Dutch u in an alt text": (
        "T512",
        NL,
        "<h2>",
        '<img src="https://www.bank.example/k.jpg" width="60" height="90" alt="Uw keuken"><h2>',
        7,
    ),
    "the Dutch u in a WhatsApp text": ("T512", TEXTS, 'approved = "Info {{1}}', 'approved = "Info voor u {{1}}', 15),
    "the Dutch u in a button": (
        "T512",
        TEXTS,
        'approved = "Info',
        'buttons = [{ title = "Uw STOP", payload = "STOP" }]\napproved = "Info',
        15,
    ),
    "a French sentence in a Dutch text": ("T508", NL, "<h2>", "<p>Vous avez des questions ? Maak een afspraak.</p><h2>", 7),
    "an English text in a macro's argument": ("T508", NL, '"Bereken je lening"', '"Settled for you with us"', 8),
    "a preheader in capitals": ("T206", TEXTS, 'preheader = "', 'preheader = "NU SNEL EEN LENING VOOR IEDEREEN: ', 8),
    "a character that nobody sees": ("T206", NL, "Leen tot", "Le\u200ben tot", 6),
    "a push link without its scheme": ("T301", TEXTS, 'link = "{{ offer_url }}"', 'link = "www.bank.example/loan"', 4),
    "the layout of another language": ("T003", NL, "_shared/layout.html", "_shared/fr/layout.html", 1),
    "a mistyped macro in an import": ("T003", NL, "import button", "import buton", 2),
    "a layout that is not there": ("T003", NL, "_shared/layout.html", "_shared/layuot.html", 1),
    "a topic that the product demands": ("T007", DECLARATION, 'topic = "consumer_credit"\n', "", 8),
    "an address in place of its variable": ("T501", FR, "button(offer_url", 'button("https://www.bank.example/loan"', 8),
    "an empty advertising mark": ("T402", NL, "%}Reclame{%", "%}{%", 3),
    "a link that only its colour marks": (
        "T112",
        NL,
        "<h2>",
        f'<p>Lees <a class="link" style="color:#1f5673; text-decoration:none" href="{HOME}">onze tips</a> voor je leent.</p><h2>',
        7,
    ),
    "two links of one text": ("T113", NL, "<h2>", f'<p>{LINK}{HOME}">Bereken je lening</a></p><h2>', 8),
    "a number in letters": ("T309", NL, "<h2>", f'<p>{LINK}tel:0800-BANK">Bel ons</a></p><h2>', 7),
    "a number that no country gives out": ("T309", NL, "<h2>", f'<p>{LINK}tel:+32123">Bel ons</a></p><h2>', 7),
    "a number of one country": ("T309", NL, "<h2>", f'<p>{LINK}tel:023033112">Bel ons</a></p><h2>', 7),
    "a number that is not the one shown": ("T309", NL, "<h2>", f'<p>{LINK}tel:+3223033112">02 303 31 13</a></p><h2>', 7),
    "an address without a domain": ("T310", NL, "<h2>", f'<p>{LINK}mailto:info@bank">Schrijf ons</a></p><h2>', 7),
    "an address that is not the one shown": (
        "T310",
        NL,
        "<h2>",
        f'<p>{LINK}mailto:info@bank.example">hulp@bank.example</a></p><h2>',
        7,
    ),
    "a credit warning after the cut of a push": ("T409", TEXTS, 'body = "', f'body = "{"Bekijk het rustig. " * 8}', 3),
    "a second credit warning in small print": (
        "T406",
        NL,
        "<h2>",
        '<p style="font-size:8px">{{ warning }}</p><h2>',
        7,
    ),
    "a sentence in capitals by its style": (
        "T206",
        NL,
        "<h2>",
        '<p style="text-transform:uppercase">Profiteer nu snel van dit <b>mooie aanbod</b></p><h2>',
        7,
    ),
    "an English alt text": (
        "T508",
        NL,
        "<h2>",
        '<img src="https://www.bank.example/k.jpg" width="60" height="90" alt="Bright kitchen, smiling family"><h2>',
        7,
    ),
    "credit that is quick to get": ("T410", NL, "<h2>", "<p>Geld binnen 5 minuten op je rekening.</p><h2>", 7),
    "credit that groups debts": ("T410", TEXTS, 'preheader = "', 'preheader = "Groepeer je leningen: ', 8),
    "a request for a secret": ("T212", NL, "<h2>", "<p>Bevestig je wachtwoord en je pincode.</p><h2>", 7),
    "a picture that Gmail does not show": (
        "T213",
        NL,
        "<h2>",
        '<img src="https://www.bank.example/k.svg" width="60" height="90" alt="Keuken met zonlicht"><h2>',
        7,
    ),
    "hidden words": ("T214", NL, "<h2>", '<p style="font-size:0">krediet voor iedereen</p><h2>', 7),
    "a test system": ("T311", NL, BUTTON, '<a href="https://staging.bank.example/x">Bereken je lening</a>', 8),
    "a word beside a link": ("T312", TEXTS, "{{ offer_url }} {{ warning }}", "{{ offer_url }}{{ warning }}", 11),
    "a letter before a link": ("T312", TEXT, "lening: {{ offer_url }}", "lening:op{{ offer_url }}", 3),
    "a day that no calendar has": ("T513", NL, "<h2>", "<p>Aanvragen kan tot 31 juni 2027.</p><h2>", 7),
    "a day of another weekday": ("T513", NL, "<h2>", "<p>Aanvragen kan tot maandag 31 maart 2027.</p><h2>", 7),
    "a month before its day": ("T513", "offer/en/email.html", "<h2>", "<p>Until 03/31/2027 you can apply.</p><h2>", 7),
    "a placeholder in brackets": ("T609", NL, "<h2>", "<p>Dag [VOORNAAM], kijk mee.</p><h2>", 7),
    "a placeholder of another program": ("T609", TEXTS, 'preheader = "', 'preheader = "Voor %%FIRSTNAME%%: ', 8),
    "filler text": ("T609", NL, "<h2>", "<p>Lorem ipsum dolor sit amet.</p><h2>", 7),
    "an HTML entity in a subject": ("T610", TEXTS, 'subject = "', 'subject = "Lening &eacute;n plan: ', 7),
    "a tag in a push": ("T610", TEXTS, 'body = "', 'body = "<b>Nu</b> ', 3),
    "Markdown in a mail": ("T610", NL, "<h2>", "<p>**Belangrijk**: lees dit eerst.</p><h2>", 7),
    "a file that was no UTF-8": ("T610", NL, "<h2>", "<p>Een crÃ©dit voor je plannen.</p><h2>", 7),
    "a link that screen readers do not see": (
        "T103",
        NL,
        "<h2>",
        f'<p aria-hidden="true">{LINK}{HOME}">Onze tips</a></p><h2>',
        7,
    ),
    "a shared file that nobody uses": ("T604", "_shared/old.html", "", "<p>x</p>", 1),
}
SARIF_SCHEMA = {  # the part of SARIF 2.1.0 (OASIS, sarif-schema-2.1.0.json) that this program writes
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "tool": {
                        "required": ["driver"],
                        "properties": {"driver": {"required": ["name"], "properties": {"rules": {"items": {"required": ["id"]}}}}},
                    },
                    "results": {
                        "items": {
                            "required": ["message"],
                            "properties": {
                                "message": {"required": ["text"], "properties": {"text": {"type": "string"}}},
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "locations": {
                                    "items": {
                                        "properties": {
                                            "physicalLocation": {
                                                "required": ["artifactLocation"],
                                                "properties": {
                                                    "region": {"properties": {"startLine": {"type": "integer", "minimum": 1}}}
                                                },
                                            }
                                        }
                                    }
                                },
                            },
                        }
                    },
                },
            },
        },
    },
}
ALONE = (  # faults of which nothing else follows: the one finding is the only error or warning
    *("an unknown mode", "a mode that no text can have", "modes that are no list", "an unknown mode of a variable"),
    *("an unknown type of a variable", "a mistyped category", "a category in capitals", "a mistyped table of a WhatsApp text"),
    *("an amount without its filter", "an amount that a macro shows without its filter", "a WhatsApp value without its filter"),
    *("an amount with the filter of a number", "a name with the filter of an amount", "an if without its end"),
    *("a mistyped macro in an import", "a layout that is not there"),
    *("a block without its end", "a macro of the shared files without its end", "an if in a subject without its end"),
)
FOUND_IN = {"no text part": NL, "a variable that only the HTML uses": NL}  # where it is not the file that was changed
ALSO = {  # further changes that a fault needs, to be a fault of its own
    "the layout of another language": ("_shared/fr/layout.html", "", '{% extends "_shared/layout.html" %}'),
    "a fixed amount in a macro's argument": (TEXT, sound_folder()[TEXT], REMOVED),  # the text part is made from the HTML
    "a date without its filter": (
        DECLARATION,
        "[variables.amount]",
        '[variables.until]\ncategory = "product"\ntype = "date"\nexample = 2027-03-31\n[variables.amount]',
    ),
    "a credit warning hidden in Outlook's dark scheme": (LAYOUT, "<style>", '<style data-css-inline="ignore">'),
    "a plural after any number": (
        DECLARATION,
        "[variables.amount]",
        '[variables.coins]\ncategory = "product"\ntype = "number"\nexample = 5\nsamples = [0, 1, 1500]\n[variables.amount]',
    ),
    "a class with little contrast": (LAYOUT, ".muted {", ".pale { color: #ccc } .muted {"),
    "a macro with data of tailored messages": (
        DECLARATION,
        "[variables.amount]",
        '[variables.history]\ncategory = "transactions"\nexample = "x"\n[variables.amount]',
    ),
}


def changed(name: str) -> dict[str, str]:
    """The sound folder with one fault."""
    _, file, old, new, _ = FAULTS[name]
    files = sound_folder()
    for path, before, after in ((file, old, new), ALSO.get(name, ("", "", ""))):
        if path:
            assert before in files.get(path, ""), "the replacement must change the file"
            files[path] = files.get(path, "").replace(before, after, 1) if before else after
    return {path: text for path, text in files.items() if text != REMOVED}


@pytest.fixture(scope="module")
def shipped_findings() -> list[LintFinding]:
    return lint_folder(POLICY, SHIPPED)


def test_the_shipped_templates_have_no_error_or_warning(shipped_findings: list[LintFinding]) -> None:
    assert [str(each) for each in shipped_findings if each.severity is not Severity.INFO] == []


def test_the_sound_template_has_no_finding(tmp_path: Path) -> None:
    assert lint_folder(POLICY, write(tmp_path, sound_folder())) == []


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_code_file_and_line(tmp_path: Path, name: str) -> None:
    code, file, _, _, line = FAULTS[name]
    file = FOUND_IN.get(name, file)
    found = lint_folder(POLICY, write(tmp_path, changed(name)))
    assert [each for each in found if (each.code, each.file, each.line) == (code, file, line)], "\n".join(map(str, found))


@pytest.mark.parametrize("name", ALONE)
def test_one_fault_is_one_error(tmp_path: Path, name: str) -> None:
    code, file, _, _, line = FAULTS[name]
    found = [each for each in lint_folder(POLICY, write(tmp_path, changed(name))) if each.severity is not Severity.INFO]
    assert [(each.code, each.file, each.line) for each in found] == [(code, file, line)], "\n".join(map(str, found))


def test_harmless_variations_raise_no_alarm(tmp_path: Path) -> None:
    files, long = sound_folder(), "tot je het helemaal gelezen hebt, want dit is een lange tekst over je plannen. " * 30
    days = {"nl": "Tot 31/03/2027", "fr": "Le 31 mars 2027", "de": "Bis 31.3.2027", "en": "By March 31, 2027"}
    stops = {"nl": "Stop", "fr": "Arrêter", "de": "Abmelden", "en": "STOP"}
    for language in days:
        texts = files[f"offer/{language}/texts.toml"].replace('body = "', f'body = "{days[language]}. ')
        stop = f'buttons = [{{ title = "{stops[language]}", payload = "STOP" }}]\napproved = "Info'
        files[f"offer/{language}/texts.toml"] = texts.replace('approved = "Info', stop)
    files[NL] = files[NL].replace("<h2>", HARMLESS.replace("LONG", long) + "<h2>")
    files[TEXT] = files[TEXT].replace("Leen tot", "Tot 31 maart leen je, 100 % online. https://www.bank.example/home Leen tot")
    for language in ("fr", "de", "en"):  # the same day and page
        files[f"offer/{language}/email.html"] = files[f"offer/{language}/email.html"].replace(
            "<h2>",
            f'<p>{days[language]} 100 %</p><p><a class="link" style="color:#1f5673" href="https://www.bank.example/home">KBC</a></p><h2>',
        )
        files[f"offer/{language}/email.txt"] += f"{days[language]} 100 % https://www.bank.example/home"
    found = lint_folder(POLICY, write(tmp_path, files))
    assert [str(each) for each in found if each.severity is not Severity.INFO] == []


def test_plain_html_has_the_layouts_colours_in_both_schemes(tmp_path: Path) -> None:
    folder = tmp_path / "templates"
    for name in ("_shared", "cashback_paid"):
        copytree(SHIPPED / name, folder / name)
    page = folder / "cashback_paid" / "nl" / "email.html"
    plain = '<p>Je hoeft <b>niets</b> te doen.</p><ul><li>Dag</li></ul><a href="https://www.bank.example/home">Naar de site</a>\n'
    page.write_text(page.read_text(encoding="utf-8").replace("{{ figure(", f"{plain}{{{{ figure("), encoding="utf-8")
    found = {each.code for each in lint_folder(POLICY, folder, "cashback_paid") if each.file == "cashback_paid/nl/email.html"}
    assert found <= {"T504", "T505"}  # the new link


def test_all_faults_of_a_folder_are_found_at_once(tmp_path: Path) -> None:
    files = sound_folder()
    files[NL] = files[NL].replace("KBC{% endif %}", "{{ porject }}{% endif %}")
    files["offer/nl/texts.toml"] = files["offer/nl/texts.toml"].replace("[sms]", "[smms]")
    files["offer/fr/email.txt"] = files["offer/fr/email.txt"].replace("{{ links.unsubscribe }}", "")
    files["offer/de/email.html"] = files["offer/de/email.html"].replace("<h2>", '<img src="https://bit.ly/a.png"><h2>')
    files["offer/en/texts.toml"] = files["offer/en/texts.toml"].replace(" {{ links.unsubscribe }}", "")
    files["other/template.toml"] = "kind = "
    found = {(each.file, each.line, each.code) for each in lint_folder(POLICY, write(tmp_path, files))}
    assert found >= {
        ("offer/nl/email.html", 6, "T003"),
        ("offer/nl/texts.toml", 10, "T002"),
        ("offer/fr/email.txt", 1, "T403"),
        ("offer/de/email.html", 7, "T101"),
        ("offer/de/email.html", 7, "T203"),
        ("offer/en/texts.toml", 11, "T403"),
        ("other/template.toml", 1, "T002"),
    }
    assert ("offer/fr/email.html", 1, "T403") not in found


def test_an_example_of_another_type_hides_no_other_fault(tmp_path: Path) -> None:
    files = changed("click here")
    files[DECLARATION] += '[variables.until]\ncategory = "product"\ntype = "date"\nexample = "31/03/2027"\n'
    found = lint_folder(POLICY, write(tmp_path, files))
    line = files[DECLARATION].split("\n").index('example = "31/03/2027"') + 1
    assert (DECLARATION, line, "variables.until.example") in {(each.file, each.line, each.field) for each in found}
    assert FAULTS["click here"][0] in {each.code for each in found}


def test_a_finding_says_which_messages_have_it(tmp_path: Path) -> None:
    files = sound_folder()
    files[NL] = files[NL].replace("{{ project }}", '{{ project }} <img src="https://www.bank.example/a.png">')
    [found] = [each for each in lint_folder(POLICY, write(tmp_path, files)) if each.code == "T101"]
    assert (found.languages, found.channels, found.modes) == (("nl",), ("email",), ("tailored",))


def test_a_warning_hidden_by_the_mails_own_sheet_is_found_there(tmp_path: Path) -> None:
    files = sound_folder()
    files[NL] += (
        "{% block style %}<style>\n@media (max-width: 9em) { .notice { display: none !important } }</style>{% endblock %}\n"
    )
    files[LAYOUT] = files[LAYOUT].replace("</style></head>", "</style>{% block style %}{% endblock %}</head>")
    [found] = lint_folder(POLICY, write(tmp_path, files))
    assert (found.code, found.file, found.line, found.templates) == ("T405", NL, files[NL].count("\n"), ("offer",))


def test_a_check_of_one_template_names_no_finding_of_another(tmp_path: Path) -> None:
    files = sound_folder()
    files |= {name.replace("offer/", "second/"): text for name, text in files.items() if name.startswith("offer/")}
    files["second/template.toml"] = files["second/template.toml"].replace('"offer"', '"second"')
    files["second/nl/email.html"] += "{% block style %}<style>.notice { font-size: 1px !important }</style>{% endblock %}"
    files[LAYOUT] = files[LAYOUT].replace("</style></head>", "</style>{% block style %}{% endblock %}</head>")
    folder = write(tmp_path, files)
    assert lint_folder(POLICY, folder, "offer") == []
    assert {each.templates for each in lint_folder(POLICY, folder, "second")} == {("second",)}


def test_the_policy_says_what_blocks_an_approval(tmp_path: Path) -> None:
    files = changed("click here")
    files[DECLARATION] = files[DECLARATION].replace("[variables.amount]", UNUSED)
    template = load(write(tmp_path, files))["offer"]
    found = lint_version(POLICY, template)
    assert {each.code for each in found} == {"T102", "T601"}
    assert blocking(POLICY, found) == []
    assert {each.code for each in blocking(replace(POLICY, lint_blocking=frozenset({"T601"})), found)} == {"T601"}
    assert {each.code for each in blocking(replace(POLICY, lint_blocking=frozenset({"warning"})), found)} == {"T102", "T601"}


@pytest.mark.parametrize(
    ("language", "offer"),
    [
        ("nl", "Bereken je lening."),
        ("fr", "Découvrez nos crédits."),
        ("de", "Kredit beantragen."),
        ("en", "Borrow up to 500 euro."),
    ],
)
def test_an_offer_in_a_service_text_is_found(tmp_path: Path, language: str, offer: str) -> None:
    folder = tmp_path / "templates"
    for name in ("_shared", "optout_acknowledgement"):
        copytree(SHIPPED / name, folder / name)
    file = folder / "optout_acknowledgement" / language / "texts.toml"
    file.write_text(file.read_text(encoding="utf-8").replace('preheader = "', f'preheader = "{offer} '), encoding="utf-8")
    line = next(number for number, text in enumerate(file.read_text(encoding="utf-8").split("\n"), 1) if offer in text)
    found = lint_folder(POLICY, folder, "optout_acknowledgement")
    assert ("T408", f"optout_acknowledgement/{language}/texts.toml", line) in {(each.code, each.file, each.line) for each in found}


def test_sarif_has_the_form_that_code_hosts_read(tmp_path: Path) -> None:
    found = lint_folder(POLICY, write(tmp_path, changed("click here")))
    document = sarif(found, "templates", "1.0")
    jsonschema.validate(document, SARIF_SCHEMA)
    [result] = document["runs"][0]["results"]
    rules = document["runs"][0]["tool"]["driver"]["rules"]
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == "T102"
    location = result["locations"][0]["physicalLocation"]
    assert (location["artifactLocation"]["uri"], location["region"]["startLine"], result["level"]) == (
        f"templates/{NL}",
        8,
        "warning",
    )


def test_every_rule_explains_itself_and_is_tested() -> None:
    rules = lint_rules()
    assert all(re.fullmatch(r"T\d{3}", code) for code in rules)
    assert all(
        all(getattr(rule, part).strip() for part in ("title", "why", "source", "mend", "example")) for rule in rules.values()
    )
    assert rules.keys() - {code for code, *_ in FAULTS.values()} == {"T408", "T511"}  # below, and in `test_translations`
