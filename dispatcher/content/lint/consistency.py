"""Whether languages, channels and the two parts of a mail say the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from channels.base import Channel, Email
from dispatcher.content.environment import environment
from dispatcher.content.links import links_in
from dispatcher.content.lint.facts import comparable, example_facts, facts, without_years
from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.marked import Place
from dispatcher.content.lint.samples import LintSample, rendered, with_all_values
from dispatcher.content.static_checks import used_variables
from dispatcher.content.template import Template
from dispatcher.domain.recipient import Language

_LANGUAGE_IN_PATH = re.compile(r"(?<=[/._=-])(?:nl|fr|de|en)(?=[/._&?#-]|\Z)", re.IGNORECASE)


def consistency(samples: Iterable[LintSample]) -> Iterator[LintFinding]:
    """The findings between the messages of one template."""
    full = with_all_values(samples)
    for sample in full:
        if isinstance(sample.content, Email) and sample.page:
            yield from _parts_of_a_mail(sample, sample.content)
    by_kind: dict[tuple[Channel, str], list[LintSample]] = {}
    for sample in full:
        by_kind.setdefault((sample.request.channel, sample.mode), []).append(sample)
    for same in by_kind.values():
        yield from _languages(same)
    yield from _channels(full)
    if full:
        yield from _variables(full[0])


def _parts_of_a_mail(sample: LintSample, mail: Email) -> Iterator[LintFinding]:
    """Amounts and links of the text part against those of the HTML."""
    page, language = sample.page, sample.request.language
    if page is None:
        return
    if sample.has_generated_text:
        yield sample.finding("T507", sample.place("email.text"), "email.txt", "is made from the HTML: none is written")
        return
    html, text = facts(dict(sample.sent_texts)["email.html"], language), facts(mail.text, language)
    yearless = without_years((html, text))
    html, text = comparable(html, yearless), comparable(text, yearless)
    for amount, shown in text.items():
        if amount not in html:
            place = sample.place_of("email.text", shown)
            yield sample.finding("T503", place, "email.txt", "shows an amount or a date that the HTML does not show", shown)
    for amount, shown in html.items():
        if amount not in text:
            places = (page.own_place(each) for each, words in page.texts() if shown in words)
            message = "shows an amount or a date that the text part does not show"
            yield sample.finding("T503", next(places, sample.place("email.html")), "email.html", message, shown)
    addresses = {
        each.get("href"): each for each in page.elements() if each.tag == "a" and (each.get("href") or "").startswith("http")
    }
    unsubscribe = sample.requirements.links.unsubscribe  # T403 and T305 say where it is missing
    addresses.pop(unsubscribe, None)
    in_text = set(links_in(mail.text)) - {unsubscribe}
    yield from _variables_of_parts(sample)
    for link in sorted(in_text - addresses.keys()):
        yield sample.finding(
            "T504", sample.place_of("email.text", link), "email.txt", "has a link that the HTML does not have", link
        )
    for link, element in addresses.items():
        if link not in in_text:
            yield sample.finding("T504", page.own_place(element), "email.html", "has a link that the text part does not have", link)


def _variables_of_parts(sample: LintSample) -> Iterator[LintFinding]:
    """Variables that only one part of the mail uses."""
    html, text = _names(sample, "email.html"), _names(sample, "email.text")
    for part, names, other in (("email.html", html - text, "text part"), ("email.text", text - html, "HTML")):
        for name in sorted(names):
            place = sample.sources.line_of(sample.request.language, part, name)
            yield sample.finding("T506", place, f"{part}: {name}", f"is used in this part of the mail and not in the {other}")


def _channels(samples: list[LintSample]) -> Iterator[LintFinding]:
    """Amounts and days that a short message shows and the mail, which says all, does not."""
    mails = {(each.request.language, each.mode): each for each in samples if isinstance(each.content, Email)}
    for sample in samples:
        mail = mails.get((sample.request.language, sample.mode))
        if mail is None or mail is sample:
            continue
        in_mail: dict[str, str] = {}
        for _, text in mail.texts:
            in_mail |= facts(text, mail.request.language)
        for part, text in sample.texts:
            said = facts(text, sample.request.language)
            yearless = without_years((said, in_mail))
            known = comparable(in_mail, yearless)
            for key, shown in comparable(said, yearless).items():
                if key not in known and _has_kind(key, known):
                    yield sample.finding(
                        "T510", sample.place_of(part, shown), part, "shows an amount or a date that the mail does not", shown
                    )


def _has_kind(key: str, known: Mapping[str, str]) -> bool:
    """Whether the mail shows one of this kind: a day, a percentage or an amount."""
    return any((each[:4] == "day ", each[-1] == "%") == (key[:4] == "day ", key[-1] == "%") for each in known)


def _languages(samples: list[LintSample]) -> Iterator[LintFinding]:
    """The same message in several languages: the same variables, the same amounts and the same links."""
    yield from _different_variables(samples)
    yield from _different("T502", samples, _written_amounts, "shows an amount or a date that is missing in {others}")
    yield from _different("T505", samples, _written_links, "has a link that is missing in {others}")


def _different(
    code: str, samples: list[LintSample], read: Callable[[LintSample], Mapping[str, tuple[str, str]]], message: str
) -> Iterator[LintFinding]:
    """What one language has and most others do not; what most have is reported where it is missing."""
    found = _alike({each.request.language: read(each) for each in samples})
    counts = Counter(key for keys in found.values() for key in keys)
    for sample in samples:
        keys = found[sample.request.language]
        for key, (part, shown) in keys.items():
            others = [language for language, theirs in found.items() if key not in theirs]
            if others and counts[key] * 2 <= len(samples):
                yield sample.finding(code, sample.place_of(part, shown), part, message.format(others=", ".join(others)), shown)
        for key, count in counts.items():
            if key not in keys and count * 2 > len(samples) and not any(counts[own] * 2 <= len(samples) for own in keys):
                other = next(theirs for theirs in found.values() if key in theirs)
                yield sample.finding(
                    code, sample.place(other[key][0]), other[key][0], "lacks what the other languages have", other[key][1]
                )


def _alike(found: dict[Language, Mapping[str, tuple[str, str]]]) -> dict[Language, Mapping[str, tuple[str, str]]]:
    """The same with days in one form: without their years where a language leaves them out."""
    yearless = without_years(dict.fromkeys(keys, "") for keys in found.values())
    forms = {key: form for keys in found.values() for key in keys for form in comparable({key: ""}, yearless)}
    return {language: {forms[key]: place for key, place in keys.items()} for language, keys in found.items()}


def _written_amounts(sample: LintSample) -> Mapping[str, tuple[str, str]]:
    """The amounts of a message, rendered with the same values in every language."""
    data = {name: variable.example["nl"] for name, variable in sample.template.variables.items() if variable.type != "text"}
    same = replace(sample, request=replace(sample.request, data={**sample.request.data, **data}))
    content = rendered(same.template, same.request)
    if content is None:
        return {}
    return {
        amount: (part, shown)
        for part, text in replace(same, content=content).texts
        for amount, shown in facts(text, same.request.language).items()
    }


def _written_links(sample: LintSample) -> Mapping[str, tuple[str, str]]:
    """The links of a message, without what names the language in them; those of variables, and the reader's own, are left out."""
    values = {
        str(value)
        for variable in sample.template.variables.values()
        if variable.type == "url"
        for value in variable.example.values()
    }
    found = {link: part for part, link in sample.text_links()}
    if sample.page:
        found |= {each.get("href"): "email.html" for each in sample.page.elements() if each.tag == "a" and each.get("href")}
    return {
        _LANGUAGE_IN_PATH.sub("", link): (part, link)
        for link, part in found.items()
        if link.startswith("http") and link not in values and link not in sample.requirements.own_links
    }


def _different_variables(samples: list[LintSample]) -> Iterator[LintFinding]:
    """A variable that one language uses and the others do not."""
    parts = sorted({part for each in samples for part in each.sources.parts[each.request.language] if _is_of(part, each)})
    for part in parts:
        if any(each.sources.is_generated(each.request.language, part) for each in samples):
            continue  # the HTML, from which it is made, is compared
        used = {each.request.language: _names(each, part) for each in samples}
        for sample in samples:
            others = [names for language, names in used.items() if language != sample.request.language]
            is_there = part in sample.sources.parts[sample.request.language]
            for name in sorted(set.intersection(*map(set, others)) - used[sample.request.language]) if others and is_there else ():
                place, message = _written_value(sample, part, name)
                yield sample.finding("T501", place, f"{part}: {name}", message)
            for name in sorted(used[sample.request.language] - set().union(*others)) if others else ():
                place = sample.sources.line_of(sample.request.language, part, name)
                yield sample.finding("T501", place, f"{part}: {name}", "is used in this language only")


def _written_value(sample: LintSample, part: str, name: str) -> tuple[Place, str]:
    """Where a text has the value of a variable in place of the variable, and the message; the beginning of the text if nowhere."""
    source, language = sample.sources.parts[sample.request.language].get(part), sample.request.language
    variable = sample.template.variables[name]
    value, keys = str(variable.example[language]), example_facts(variable, language).keys()
    for number, line in enumerate(source.source.split("\n") if source else (), 1):
        if source and variable.type == "url" and "://" in line:
            return source.place(number), "is used in the other languages; here an address is written"
        if source and (value in line or (keys and keys <= facts(line, language).keys())):
            return source.place(number), "is used in the other languages; here its example is written as text"
    return sample.place(part), "is used in the other languages and not in this one"


def _is_of(part: str, sample: LintSample) -> bool:
    channel = sample.request.channel.value
    return part.startswith(f"{channel}.{sample.mode}." if sample.request.channel is Channel.WHATSAPP else f"{channel}.")


def _names(sample: LintSample, part: str) -> frozenset[str]:
    source = sample.sources.parts[sample.request.language].get(part)
    return _used(source.source) & set(sample.template.variables) if source else frozenset()


@lru_cache(maxsize=512)  # a text is compared with each of the other languages
def _used(source: str) -> frozenset[str]:
    return used_variables(environment({}), source)


def _variables(sample: LintSample) -> Iterator[LintFinding]:
    """Variables that are declared and that no text uses."""
    template: Template = sample.template
    used = {name for parts in sample.sources.parts.values() for source in parts.values() for name in _used(source.source)}
    for name in template.variables:
        if name not in used:
            finding = sample.finding("T601", sample.sources.declared_at("variables", name), f"variables.{name}", "no text uses it")
            yield replace(finding, languages=(), channels=(), modes=())
