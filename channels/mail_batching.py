"""Put many rendered e-mails into one request: shared text with substitution tags, and each person's values. Pure.

There are two ways to find the shared text. Mails with one compiled path bring it along: the fixed text of their template, and
each mail's own values (`channels.base.MergedEmail`). Other mails are compared line by line: in each line, what differs between
the common beginning and the common end becomes a gap. Mails in another language or with other paragraphs would make wide gaps;
they are recognised by lines that differ in the same pattern, and get shared text of their own.

Either way, each part of the mails becomes a list of shared texts and columns of differing texts, and each column gets a tag.
Providers replace a tag everywhere, even inside a value that replaced another tag. So no tag may occur by chance. Each tag contains
a character that occurs nowhere in these mails, neither in shared text nor in values, and then a number that ends where the tag
ends. So that character can only be part of a tag, and the number says of which.
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

SUBSTITUTION_BYTES_MAX = 10_000  # per person, SendGrid's limit
_TAG_BYTES = 16  # approximate cost of a tag per person
_MARKERS = "^`|~\\"  # rare in mails; any other character works too

Column: TypeAlias = tuple[str, ...]  # the same piece of each mail
Piece: TypeAlias = str | Column  # shared text, or a column
Draft: TypeAlias = tuple[list[Piece], list[Piece], list[Piece]]  # subject, HTML, text


@dataclass(frozen=True, slots=True)
class MailBatch:
    """Mails with shared text. `values_by_tag` gives each mail's text for each tag. `shared` is None for a single mail."""

    shared: Email | None
    mails: tuple[Outbound, ...]
    values_by_tag: tuple[Mapping[str, str], ...]

    @property
    def template(self) -> Email:
        """The shared text, with tags where mails differ. A single mail is assembled."""
        return self.shared or _assembled(self.mails[0])

    def halves(self) -> tuple[MailBatch, ...]:
        """Return the same mails in two batches. A single mail has no tags."""
        middle = (len(self.mails) + 1) // 2
        return tuple(
            MailBatch(self.template, self.mails[part], self.values_by_tag[part])
            if len(self.mails[part]) > 1
            else single(self.mails[part][0])
            for part in (slice(middle), slice(middle, None))
        )


def single(mail: Outbound) -> MailBatch:
    """Return a batch of one mail, without tags."""
    return MailBatch(None, (mail,), ({},))


def _assembled(mail: Outbound) -> Email:
    email = email_of(mail)
    return email.assemble() if isinstance(email, MergedEmail) else email


def group_mails(mails: Iterable[Outbound], mails_max: int) -> Iterator[MailBatch]:
    """Yield the mails in few batches, each of at most `mails_max` mails and without a repeated address."""
    if mails_max == 1:
        yield from map(single, mails)
        return
    for candidates in _group_compatible(mails):
        for group in [candidates] if isinstance(email_of(candidates[0]), MergedEmail) else _split_by_pattern(candidates):
            for first in range(0, len(group), mails_max):
                yield from _merge(group[first : first + mails_max])


def own_text(mail: Outbound) -> str:
    """Return all text of a mail, except the fixed text of key template if it has one."""
    email = email_of(mail)
    texts = email.values if isinstance(email, MergedEmail) else (email.subject, email.html, email.text)
    return "\n".join((*texts, *_other_values(mail)))


def email_of(outbound: Outbound) -> Email | MergedEmail:
    """Return the e-mail content of an outbound."""
    assert isinstance(outbound.content, (Email, MergedEmail))  # noqa: S101  adapters check it first
    return outbound.content


def _other_values(mail: Outbound) -> Iterator[str]:
    """Yield texts outside a mail's parts in which a provider replaces tags too."""
    yield mail.id
    yield from (value for _, value in email_of(mail).headers)


# -- which mails can share text ----------------------------------------------------------------------------------------------


def _group_compatible(mails: Iterable[Outbound]) -> Iterable[list[Outbound]]:
    """Group mails by sender, reply address, and template or number of lines. A second mail to an address is in another group."""
    groups: dict[tuple[object, ...], list[Outbound]] = defaultdict(list)
    addresses_seen: Counter[str] = Counter()
    for mail in mails:
        email, address = email_of(mail), mail.address.lower()
        groups[email.sender_name, email.sender_address, email.reply_to, _shape_key(mail), addresses_seen[address]].append(mail)
        addresses_seen[address] += 1
    return groups.values()


def _shape_key(mail: Outbound) -> object:
    """Return what mails of one batch must have in common. A mail with an empty part is alone, because SendGrid refuses it."""
    email = email_of(mail)
    if isinstance(email, MergedEmail):
        return email.template if any(email.template.html.literals) and any(email.template.text.literals) else mail.id
    return (email.html.count("\n"), email.text.count("\n")) if email.html and email.text else mail.id


def _split_by_pattern(mails: list[Outbound]) -> Iterator[list[Outbound]]:
    """Split the mails further if separate shared texts are smaller than wide gaps.

    Lines that differ in the same pattern (these mails one text, those another) do so for one reason, such as the language.
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
                yield from _split_by_pattern([mail for mail, key in zip(mails, pattern, strict=True) if key == number])
            return
    yield mails


def _plain_emails(mails: Iterable[Outbound]) -> list[Email]:
    return [email for mail in mails if isinstance(email := email_of(mail), Email)]


def _lines(emails: Sequence[Email]) -> Iterator[Column]:
    """Yield the mails line by line: the subject, then the lines of the HTML, then those of the text."""
    return zip(*((email.subject, *email.html.split("\n"), *email.text.split("\n")) for email in emails), strict=True)


# -- shared text and tags ----------------------------------------------------------------------------------------------------------


def _merge(mails: list[Outbound]) -> Iterator[MailBatch]:
    """Yield one batch of these mails, and single mails for those whose values are too long."""
    if len(mails) == 1:
        yield single(mails[0])
        return
    batch = _build_batch(mails, _draft_from_lines(emails) if (emails := _plain_emails(mails)) else _draft_from_templates(mails))
    fits = [_fits(values) for values in batch.values_by_tag]
    if all(fits):
        yield batch
        return
    fitting = [mail for mail, key in zip(mails, fits, strict=True) if key]
    yield from (single(mail) for mail, key in zip(mails, fits, strict=True) if not key)
    if fitting:
        yield from _merge(fitting)


def _fits(values: Mapping[str, str]) -> bool:
    characters = sum(map(len, values.values()))
    # JSON needs at most 12 bytes for a character and 24 for a tag: compute the exact length only where it matters.
    return 12 * characters + 24 * len(values) <= SUBSTITUTION_BYTES_MAX or len(json.dumps(values)) <= SUBSTITUTION_BYTES_MAX


def _build_batch(mails: Sequence[Outbound], draft: Draft) -> MailBatch:
    """Replace the columns of the draft by tags."""
    columns = dict.fromkeys(piece for part in draft for piece in part if isinstance(piece, tuple))  # equal columns share a tag
    literals = (piece for part in draft for piece in part if isinstance(piece, str))
    marker = _unused_character("\n".join(chain(literals, *columns, *map(_other_values, mails))))
    tags = {column: f"-{marker}{number}-" for number, column in enumerate(columns)}
    subject, html, text = ("".join([tags[piece] if isinstance(piece, tuple) else piece for piece in part]) for part in draft)
    sender = email_of(mails[0])
    names = tuple(tags.values())
    rows = zip(*columns, strict=True) if columns else (() for _ in mails)
    values_by_tag = tuple(dict(zip(names, row, strict=True)) for row in rows)
    shared = Email(sender.sender_name, sender.sender_address, subject, html, text, reply_to=sender.reply_to)
    return MailBatch(shared, tuple(mails), values_by_tag)


def _unused_character(text: str) -> str:
    """Return a character that does not occur in the text."""
    return next(character for character in chain(_MARKERS, map(chr, range(0x2500, 0xD800))) if character not in text)


def _draft_from_templates(mails: Sequence[Outbound]) -> Draft:
    """Build a draft from the template of merged e-mails."""
    emails = [email for mail in mails if isinstance(email := email_of(mail), MergedEmail)]
    template, columns = emails[0].template, list(zip(*(email.values for email in emails), strict=True))
    return _pieces(template.subject, columns), _pieces(template.html, columns), _pieces(template.text, columns)


def _pieces(text: TextTemplate, columns: Sequence[Column]) -> list[Piece]:
    """Return fixed texts and columns in turn; a column of equal texts becomes fixed text."""
    pieces: list[Piece] = [text.literals[0]]
    for gap, literal in zip(text.gaps, text.literals[1:], strict=True):
        column = columns[gap]
        pieces += (column[0] if column.count(column[0]) == len(column) else column, literal)
    return pieces


def _draft_from_lines(emails: Sequence[Email]) -> Draft:
    """Build a draft by comparing the mails line by line."""
    lines: list[list[Piece]] = []
    for line in _lines(emails):
        before, gaps, after = _split_line(line)
        lines.append([before, gaps, after] if gaps else [before])
    html_lines = emails[0].html.count("\n") + 1
    return lines[0], _join_lines(lines[1 : 1 + html_lines]), _join_lines(lines[1 + html_lines :])


def _join_lines(lines: Iterable[Sequence[Piece]]) -> list[Piece]:
    return list(chain.from_iterable(("\n", *line) for line in lines))[1:]


def _split_line(line: Column) -> tuple[str, Column, str]:
    """Return the common beginning of a line, what each mail has after it, and the common end. No gaps if the line is equal."""
    if line.count(line[0]) == len(line):
        return line[0], (), ""
    before = commonprefix([min(line), max(line)])  # noqa: RUF071  compares character by character, as needed here
    remainders = [item[len(before) :][::-1] for item in line]
    after = commonprefix([min(remainders), max(remainders)])[::-1]  # noqa: RUF071
    return before, tuple(item[len(before) : len(item) - len(after)] for item in line), after
