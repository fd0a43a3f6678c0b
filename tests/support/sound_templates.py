"""A folder with one template in which the linter finds nothing: tests change one place of it."""

from __future__ import annotations

import re

LAYOUT = """\
<!DOCTYPE html>
<html lang="{{ language }}">
<head><meta charset="utf-8"><title>{% block title %}{% endblock %}</title>
<style>
.muted { color: #4a5d6c }
@media (max-width: 480px) { .wide { width: 100% } }
@media (prefers-color-scheme: dark) {
.page { background-color: #12181d !important } .ink { color: #f2f5f7 !important } .link { color: #8ecae6 !important } }
</style></head>
<body class="page" style="background-color:#ffffff">
<div style="display:none">{% block preheader %}{% endblock %}</div>
<table role="presentation" width="100%"><tr><td class="ink" style="color:#1c2b36; font-size:16px">
{% if commercial %}
<p>{% block advertising %}{% endblock %}</p>
{% endif %}
<h1>{% block headline %}{% endblock %}</h1>
{% block body %}{% endblock %}
{% if warning %}
<p class="notice" style="font-size:18px">{{ warning }}</p>
{% endif %}
{% if commercial %}
<p><a class="link" href="{{ links.unsubscribe }}" style="color:#1f5673">{% block ways_out %}{% endblock %}</a></p>
{% endif %}
<p>{{ sender.name }}</p>
</td></tr></table>
</body>
</html>
"""
MACROS = """\
{% macro button(url, words) %}
<p><a class="link" href="{{ url }}" style="color:#1f5673">{{ words }}</a></p>
{% endmacro %}
"""
LEGAL = """\
[advertising]
nl = "Reclame"
fr = "Publicité"
de = "Werbung"
en = "Advertising"

[topics.consumer_credit]
nl = "Let op, geld lenen kost ook geld."
fr = "Attention, emprunter de l'argent coûte aussi de l'argent."
de = "Achtung, Geld leihen kostet auch Geld."
en = "Warning: borrowing money also costs money."

[push]
withheld_categories = ["balance"]
"""
DECLARATION = """\
name = "offer"
version = "1"
kind = "commercial"
entity = "kbc-bank"
offer_type = "own"
modes = ["tailored", "standard"]
channels = ["push", "email", "sms", "whatsapp"]
topic = "consumer_credit"
product = "loan"

[variables.first_name]
category = "identity"
required = false
example = "Ann"

[variables.project]
category = "transactions"
modes = ["tailored"]
example = "roof"

[variables.amount]
category = "product"
type = "money"
example = 1500

[variables.offer_url]
category = "product"
type = "url"
example = "https://www.bank.example/loan"
"""
HTML = """\
{% extends "_shared/layout.html" %}
{% from "_shared/macros.html" import button with context %}
{% block advertising %}MARK{% endblock %}
{% block headline %}HEADLINE{% endblock %}
{% block body %}
<p>GREETING{% if mode == "tailored" %}, {{ project }}{% endif %}: BODY {{ amount | money }}.</p>
<h2>HEADLINE</h2>
{{ button(offer_url, "ACTION") }}
{% endblock %}
{% block ways_out %}STOP{% endblock %}
"""
TEXT = """\
MARK
GREETING{% if mode == "tailored" %}, {{ project }}{% endif %}: BODY {{ amount | money }}.
ACTION: {{ offer_url }}
{{ warning }}
STOP: {{ links.unsubscribe }}
{{ sender.name }}
"""
TEXTS = """\
[push]
title = "HEADLINE"
body = "BODY {{ amount | money }}. {{ warning }}"
link = "{{ offer_url }}"

[email]
subject = "HEADLINE"
preheader = "ACTION"

[sms]
text = "{{ sender.name }}: BODY {{ amount | money }} {{ offer_url }} {{ warning }} STOP: {{ links.unsubscribe }}"

"""
WHATSAPP = """\
content_sid = "HX0000000000000000000000000000000{number}"
approved = "Info {{{{1}}}}: BODY {{{{2}}}}, {{{{3}}}}. WARNING STOP: {{{{4}}}} KBC."
1 = "{{{{ sender.name }}}}"
2 = "{{{{ amount | money }}}}"
3 = "{{{{ offer_url }}}}"
4 = "{{{{ links.unsubscribe }}}}"
"""
GREETING = "{% if first_name %}{{ first_name }}{% else %}KBC{% endif %}"
WORDS = {
    "nl": ("Reclame", "Een lening voor je plannen", "Leen tot", "Bereken je lening", "Geen reclame meer"),
    "fr": ("Publicité", "Un crédit pour vos projets", "Empruntez", "Calculez votre crédit", "Plus de publicité"),
    "de": ("Werbung", "Ein Kredit für Ihre Pläne", "Leihen Sie bis zu", "Kredit berechnen", "Keine Werbung mehr"),
    "en": ("Advertising", "A loan for your plans", "Borrow up to", "Calculate your loan", "No more advertising"),
}
WARNINGS = {line[:2]: line[6:-1] for line in LEGAL.splitlines()[7:11]}


def sound_folder() -> dict[str, str]:
    """The files of the folder, by name."""
    texts = TEXTS + "".join(
        f"[whatsapp.{mode}]\n{WHATSAPP.format(number=number)}\n" for number, mode in enumerate(("tailored", "standard"), start=1)
    )
    files = {
        "_shared/layout.html": LAYOUT,
        "_shared/macros.html": MACROS,
        "_shared/legal.toml": LEGAL,
        "offer/template.toml": DECLARATION,
    }
    for language, words in WORDS.items():
        for name, text in (("email.html", HTML), ("email.txt", TEXT), ("texts.toml", texts)):
            files[f"offer/{language}/{name}"] = _filled(text, language, words)
    return files


def _filled(text: str, language: str, words: tuple[str, ...]) -> str:
    values = dict(zip(("MARK", "HEADLINE", "BODY", "ACTION", "STOP"), words, strict=True))
    values |= {"GREETING": GREETING, "WARNING": WARNINGS[language]}
    return re.sub("|".join(values), lambda mark: values[mark[0]], text)
