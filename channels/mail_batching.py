"""Many rendered e-mails as one: a form with gaps, and for each person what fills them. Pure.

What mails have in common is known in one of two ways. Mails that were written along one path through their template bring it
with them: the path's words, and each mail's own values between them (`channels.base.Pieced`). Other mails are laid line beside
line: what differs in a line, between the beginning and the end that all share, becomes a gap. Mails in other languages or with
other paragraphs would make wide gaps: they are told apart by the lines that differ together, and get a form of their own.

Either way a mail's parts become a row of words that all share and columns of words that differ, and each column gets a tag. A
tag is filled wherever it stands, also in what another tag brought in. So no tag may come about by chance: all have a character
in their middle that stands nowhere in these mails, neither in the words of all nor in what a person's name may hold, and behind
it a number that ends where the tag ends. Wherever a tag is found, that character is a tag's own, and the tag is that one.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from os.path import commonprefix
from typing import TypeAlias

from channels.base import Email, MergedEmail, Outbound, TextTemplate

SUBSTITUTION_BYTES_MAX = 10_000  # of one person, SendGrid's limit
_TAG_BYTES = 16  # about what a tag costs each person
_MARKERS = "^`|~\\"  # what few mails hold; any other character does as well

Column: TypeAlias = tuple[str, ...]  # the same piece of every mail
Piece: TypeAlias = str | Column  # words that all share, or a column
Draft: TypeAlias = tuple[list[Piece], list[Piece], list[Piece]]  # subject, HTML, text


@dataclass(frozen=True, slots=True)
class MailBatch:
    """Mails of one form. `fillings` gives for each mail the text in the place of each tag. `shared` is None for a mail alone."""

    shared: Email | None
    mails: tuple[Outbound, ...]
    values_by_tag: tuple[Mapping[str, str], ...]

    @property
    def form(self) -> Email:
        """What all share, with tags where they differ; a mail alone is put together."""
        return self.shared or _assembled(self.mails[0])

    def halves(self) -> tuple[MailBatch, ...]:
        """The same mails in two batches. A mail that is left alone is as it was written, without tags."""
        middle = (len(self.mails) + 1) // 2
        return tuple(
            MailBatch(self.form, self.mails[part], self.values_by_tag[part])
            if len(self.mails[part]) > 1
            else single(self.mails[part][0])
            for part in (slice(middle), slice(middle, None))
        )


def single(mail: Outbound) -> MailBatch:
    """A batch of one, without tags."""
    return MailBatch(None, (mail,), ({},))


def _assembled(mail: Outbound) -> Email:
    email = email_of(mail)
    return email.assemble() if isinstance(email, MergedEmail) else email


def group_mails(mails: Iterable[Outbound], mails_max: int) -> Iterator[MailBatch]:
    """The same mails in as few batches as is good, each of `mails_max` at most and with no address twice."""
    if mails_max == 1:
        yield from map(single, mails)
        return
    for alike in _group_compatible(mails):
        for kin in [alike] if isinstance(email_of(alike[0]), MergedEmail) else _split_by_pattern(alike):
            for first in range(0, len(kin), mails_max):
                yield from _merge(kin[first : first + mails_max])


def own_text(mail: Outbound) -> str:
    """All text of a mail but the words of its form, if it has one: those are the template's."""
    email = email_of(mail)
    texts = email.values if isinstance(email, MergedEmail) else (email.subject, email.html, email.text)
    return "\n".join((*texts, *_other_values(mail)))


def email_of(outbound: Outbound) -> Email | MergedEmail:
    """The mail, as it came."""
    assert isinstance(outbound.content, (Email, MergedEmail))  # noqa: S101  adapters check it first
    return outbound.content


def _other_values(mail: Outbound) -> Iterator[str]:
    """What a provider may fill besides a mail's parts."""
    yield mail.id
    yield from (value for _, value in email_of(mail).headers)


# -- who can share a form ----------------------------------------------------------------------------------------------


def _group_compatible(mails: Iterable[Outbound]) -> Iterable[list[Outbound]]:
    """Mails of one sender with one form, or with as many lines; the second mail for an address stands in another list than the
    first."""
    found: dict[tuple[object, ...], list[Outbound]] = defaultdict(list)
    met: Counter[str] = Counter()
    for mail in mails:
        email, address = email_of(mail), mail.address.lower()
        found[email.sender_name, email.sender_address, _shape_key(mail), met[address]].append(mail)
        met[address] += 1
    return found.values()


def _shape_key(mail: Outbound) -> object:
    """Mails of another shape leave apart. One with an empty part is alone: SendGrid refuses it, by no fault of its neighbours."""
    email = email_of(mail)
    if isinstance(email, MergedEmail):
        return email.template if any(email.template.html.words) and any(email.template.text.words) else mail.id
    return (email.html.count("\n"), email.text.count("\n")) if email.html and email.text else mail.id


def _split_by_pattern(mails: list[Outbound]) -> Iterator[list[Outbound]]:
    """Parted further where forms of their own cost less than wide gaps.

    Lines that differ in the same pattern (these mails one way, those another) do so for one reason, such as the language.
    """
    if len(mails) < 4:
        yield mails
        return
    shared, patterns = 0, Counter[tuple[int, ...]]()
    for line in _lines(_plain_emails(mails)):
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
                yield from _split_by_pattern([mail for mail, its in zip(mails, pattern, strict=True) if its == number])
            return
    yield mails


def _plain_emails(mails: Iterable[Outbound]) -> list[Email]:
    return [email for mail in mails if isinstance(email := email_of(mail), Email)]


def _lines(emails: Sequence[Email]) -> Iterator[Column]:
    """The mails line by line: first the subject, then the HTML's lines, then the text's."""
    return zip(*((email.subject, *email.html.split("\n"), *email.text.split("\n")) for email in emails), strict=True)


# -- the form ----------------------------------------------------------------------------------------------------------


def _merge(mails: list[Outbound]) -> Iterator[MailBatch]:
    """One batch of these, and beside it those that differ too much."""
    if len(mails) == 1:
        yield single(mails[0])
        return
    batch = _build_batch(mails, _draft_from_lines(emails) if (emails := _plain_emails(mails)) else _draft_from_templates(mails))
    fits = [_fits(filling) for filling in batch.values_by_tag]
    if all(fits):
        yield batch
        return
    fitting = [mail for mail, its in zip(mails, fits, strict=True) if its]
    yield from (single(mail) for mail, its in zip(mails, fits, strict=True) if not its)
    if fitting:
        yield from _merge(fitting)


def _fits(filling: Mapping[str, str]) -> bool:
    characters = sum(map(len, filling.values()))
    # JSON writes a character in 12 bytes at most, a tag in 24: the exact length is asked for only where it matters.
    return 12 * characters + 24 * len(filling) <= SUBSTITUTION_BYTES_MAX or len(json.dumps(filling)) <= SUBSTITUTION_BYTES_MAX


def _build_batch(mails: Sequence[Outbound], draft: Draft) -> MailBatch:
    """The draft with tags in the place of its columns."""
    columns = dict.fromkeys(piece for part in draft for piece in part if isinstance(piece, tuple))  # what is the same has one tag
    words = (piece for part in draft for piece in part if isinstance(piece, str))
    middle = _unused_character("\n".join(chain(words, *columns, *map(_other_values, mails))))
    tags = {column: f"-{middle}{number}-" for number, column in enumerate(columns)}
    subject, html, text = ("".join([tags[piece] if isinstance(piece, tuple) else piece for piece in part]) for part in draft)
    sender = email_of(mails[0])
    names = tuple(tags.values())
    rows = zip(*columns, strict=True) if columns else (() for _ in mails)
    values_by_tag = tuple(dict(zip(names, row, strict=True)) for row in rows)
    return MailBatch(Email(sender.sender_name, sender.sender_address, subject, html, text), tuple(mails), values_by_tag)


def _unused_character(everything: str) -> str:
    """A character that stands nowhere in there."""
    return next(sign for sign in chain(_MARKERS, map(chr, range(0x2500, 0xD800))) if sign not in everything)


def _draft_from_templates(mails: Sequence[Outbound]) -> Draft:
    """A draft from the pieces that the mails brought with them."""
    emails = [email for mail in mails if isinstance(email := email_of(mail), MergedEmail)]
    form, columns = emails[0].template, list(zip(*(email.values for email in emails), strict=True))
    return _pieces(form.subject, columns), _pieces(form.html, columns), _pieces(form.text, columns)


def _pieces(text: TextTemplate, columns: Sequence[Column]) -> list[Piece]:
    """Words and columns in turn; a column that is the same all the way is words."""
    pieces: list[Piece] = [text.words[0]]
    for gap, words in zip(text.gaps, text.words[1:], strict=True):
        column = columns[gap]
        pieces += (column[0] if column.count(column[0]) == len(column) else column, words)
    return pieces


def _draft_from_lines(emails: Sequence[Email]) -> Draft:
    """A draft from mails laid side by side."""
    lines: list[list[Piece]] = []
    for line in _lines(emails):
        before, gaps, after = _split_line(line)
        lines.append([before, gaps, after] if gaps else [before])
    html_lines = emails[0].html.count("\n") + 1
    return lines[0], _join_lines(lines[1 : 1 + html_lines]), _join_lines(lines[1 + html_lines :])


def _join_lines(lines: Iterable[Sequence[Piece]]) -> list[Piece]:
    return list(chain.from_iterable(("\n", *line) for line in lines))[1:]


def _split_line(line: Column) -> tuple[str, Column, str]:
    """What all mails have at the line's beginning, what each has then, what all have at its end. No gaps: the line is the same."""
    if line.count(line[0]) == len(line):
        return line[0], (), ""
    before = commonprefix([min(line), max(line)])  # noqa: RUF071  character by character is what is wanted
    cool_downs = [text[len(before) :][::-1] for text in line]
    after = commonprefix([min(cool_downs), max(cool_downs)])[::-1]  # noqa: RUF071
    return before, tuple(text[len(before) : len(text) - len(after)] for text in line), after
