"""Many rendered e-mails as one: a form with gaps, and for each person what fills them. Pure.

Mails written from one text have the same lines but for a few, and these differ in a few words. So mails are laid line beside
line; what differs in a line, between the beginning and the end that all share, becomes a gap with a tag in it. Mails in other
languages or with other paragraphs would make wide gaps: they are told apart by the lines that differ together, and get a form of
their own.

A tag is filled wherever it stands, also in what another tag brought in. So no tag may be met by chance: all tags share a core
("s0.") that stands in none of the mails, neither in their own words nor in what a person's name may hold. A core has no dash and
each tag begins and ends with one, so that a core can't come about across the border of a tag either.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from os.path import commonprefix
from typing import TypeAlias

from channels.base import Email, Outbound

SUBSTITUTION_BYTES_MAX = 10_000  # of one person, SendGrid's limit
_TAG_BYTES = 16  # about what a tag costs each person

Line: TypeAlias = tuple[str, ...]  # the same line of every mail


@dataclass(frozen=True, slots=True)
class Batch:
    """Mails of one form. `form` holds tags where they differ; `fillings` gives for each mail the text in the place of each tag."""

    form: Email
    mails: tuple[Outbound, ...]
    fillings: tuple[Mapping[str, str], ...]

    def halves(self) -> tuple[Batch, ...]:
        """The same mails in two batches. A mail that is left alone is as it was written, without tags."""
        middle = (len(self.mails) + 1) // 2
        return tuple(
            Batch(self.form, self.mails[part], self.fillings[part]) if len(self.mails[part]) > 1 else alone(self.mails[part][0])
            for part in (slice(middle), slice(middle, None))
        )


def alone(mail: Outbound) -> Batch:
    """A batch of one, without tags."""
    return Batch(_email(mail), (mail,), ({},))


def batches(mails: Iterable[Outbound], mails_max: int) -> Iterator[Batch]:
    """The same mails in as few batches as is good, each of `mails_max` at most and with no address twice."""
    if mails_max == 1:
        yield from map(alone, mails)
        return
    for alike in _alike(mails):
        for kin in _families(alike):
            for first in range(0, len(kin), mails_max):
                yield from _join(kin[first : first + mails_max])


def whole(mail: Outbound) -> str:
    """All text of a mail in which a tag could be taken for one."""
    email = _email(mail)
    return "\n".join((email.subject, email.html, email.text, mail.id, *(value for _, value in email.headers)))


def _email(mail: Outbound) -> Email:
    assert isinstance(mail.content, Email)  # noqa: S101  adapters check it first
    return mail.content


# -- who can share a form ----------------------------------------------------------------------------------------------


def _alike(mails: Iterable[Outbound]) -> Iterable[list[Outbound]]:
    """Mails of one sender with as many lines; the second mail for an address stands in another list than the first."""
    found: dict[tuple[object, ...], list[Outbound]] = defaultdict(list)
    met: Counter[str] = Counter()
    for mail in mails:
        email, address = _email(mail), mail.address.lower()
        empty = not (email.html and email.text)  # refused by SendGrid, and by no fault of its neighbours
        lines = (email.html.count("\n"), email.text.count("\n"))
        found[email.sender_name, email.sender_address, lines, met[address], mail.id if empty else ""].append(mail)
        met[address] += 1
    return found.values()


def _families(mails: list[Outbound]) -> Iterator[list[Outbound]]:
    """Parted further where forms of their own cost less than wide gaps.

    Lines that differ in the same pattern (these mails one way, those another) do so for one reason, such as the language.
    """
    if len(mails) < 4:
        yield mails
        return
    shared, patterns = 0, Counter[tuple[int, ...]]()
    for line in _lines(mails):
        if line.count(line[0]) == len(line):
            shared += len(line[0])
            continue
        first: dict[str, int] = {}
        pattern = tuple(first.setdefault(text, number) for number, text in enumerate(line))
        if len(first) <= len(mails) // 4:
            patterns[pattern] += sum(map(len, line)) + len(line) * _TAG_BYTES
    if patterns:
        ((pattern, saved),) = patterns.most_common(1)
        if saved > (len(set(pattern)) - 1) * shared:
            for number in sorted(set(pattern)):
                yield from _families([mail for mail, its in zip(mails, pattern, strict=True) if its == number])
            return
    yield mails


def _lines(mails: Sequence[Outbound]) -> Iterator[Line]:
    """The mails line by line: first the subject, then the HTML's lines, then the text's."""
    emails = [_email(mail) for mail in mails]
    return zip(*((email.subject, *email.html.split("\n"), *email.text.split("\n")) for email in emails), strict=True)


# -- the form ----------------------------------------------------------------------------------------------------------


def _join(mails: list[Outbound]) -> Iterator[Batch]:
    """One batch of these, and beside it those that differ too much."""
    if len(mails) == 1:
        yield alone(mails[0])
        return
    batch = _form(mails)
    fits = [len(json.dumps(filling)) <= SUBSTITUTION_BYTES_MAX for filling in batch.fillings]
    if all(fits):
        yield batch
        return
    fitting = [mail for mail, its in zip(mails, fits, strict=True) if its]
    yield from (alone(mail) for mail, its in zip(mails, fits, strict=True) if not its)
    if fitting:
        yield from _join(fitting)


def _form(mails: list[Outbound]) -> Batch:
    core = _core([whole(mail) for mail in mails])
    tags: dict[Line, str] = {}  # what is filled in -> its tag: what differs alike in two places has one tag
    lines = []
    for line in _lines(mails):
        before, gaps, after = _gaps(line)
        if gaps:
            lines.append(f"{before}{tags.setdefault(gaps, f'-{core}{len(tags)}-')}{after}")
        else:
            lines.append(before)
    email = _email(mails[0])
    subject, html_lines = lines[0], email.html.count("\n") + 1
    html, text = "\n".join(lines[1 : 1 + html_lines]), "\n".join(lines[1 + html_lines :])
    names = tuple(tags.values())
    columns = zip(*tags, strict=True) if tags else (() for _ in mails)
    fillings = tuple(dict(zip(names, values, strict=True)) for values in columns)
    return Batch(replace(email, subject=subject, html=html, text=text, headers=()), tuple(mails), fillings)


def _core(texts: Sequence[str]) -> str:
    """The first core that stands in none of the texts."""
    for number in count():
        core = f"s{number}."
        if not any(core in text for text in texts):
            return core
    raise AssertionError("unreachable")


def _gaps(line: Line) -> tuple[str, Line, str]:
    """What all mails have at the line's beginning, what each has then, what all have at its end. No gaps: the line is the same."""
    if line.count(line[0]) == len(line):
        return line[0], (), ""
    before = commonprefix([min(line), max(line)])  # noqa: RUF071  character by character is what is wanted
    rests = [text[len(before) :][::-1] for text in line]
    after = commonprefix([min(rests), max(rests)])[::-1]  # noqa: RUF071
    return before, tuple(text[len(before) : len(text) - len(after)] for text in line), after
