"""Many mails in one request: each recipient gets the same bytes as alone, and one bad mail affects no other."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.base import Channel, Email, MailTemplate, MergedEmail, Outbound, Receipt, Rejected, TextTemplate, Throttled, Uncertain
from channels.http import HttpTransport
from channels.mail_batching import SUBSTITUTION_BYTES_MAX, MailBatch, group_mails
from channels.providers.sendgrid import SendGrid
from channels.sandbox import SandboxClient, running
from channels.send_window import window_of
from dispatcher.content import Catalog, MessageLinks, example_request
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES
from tests.support.http_servers import LOST, Answer, ReceivedRequest, http_answer, http_server
from tests.support.provider_cases import EMAIL, as_json, mailbox
from tests.support.services import specialised_templates, templates

HOSTILE = (
    "Anna",
    "-^0-",
    "^",
    "^0--`1-",
    "^`|~\\",
    "{{ first_name }} {% x %}",
    "%s %(name)s %open-track%",
    "\"quoted\" \\ 'single' \\u0041 \\n",
    "Zoë Łukasz \U0001f600 e\u0301 \u202eleft",
    "<b>&amp;</b><!-- -->",
    "-",
    "",
    "  two  blanks  ",
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxClient]:
    with running() as started:
        yield started


def adapter(url: str, mails_per_request: int = 100) -> SendGrid:
    return SendGrid("SG.key", HttpTransport(timeout_seconds=5), url, mails_per_request=mails_per_request)


def arrived(sandbox: SandboxClient, mails: Sequence[Outbound], mails_per_request: int) -> tuple[dict[str, Any], int]:
    """Return the mails as recipients get them, by id, and the number of requests."""
    first = sandbox.counts()["total"]
    results = dict(adapter(sandbox.url, mails_per_request).send(mails, window_of(30)))
    assert len(results) == len(mails)
    rows = list(sandbox.log(after=first))
    receipts = {sent.id: result.name for sent, result in results.items() if isinstance(result, Receipt)}
    assert receipts == {row["message_id"]: row["receipt"] for row in rows}
    contents = {row["message_id"]: sandbox.message(row["seq"])["content"] for row in rows}
    return contents, len({row["receipt"] for row in rows})


# -- byte for byte -----------------------------------------------------------------------------------------------------

MAILS = [(name, mode) for name, template in sorted(templates().items()) for mode in sorted(template.info.modes)]


@lru_cache(maxsize=1)
def specialised() -> Catalog:
    """Return the shipped templates whose mails are merged e-mails."""
    return specialised_templates(lambda: 1.0)


def written(catalog: Catalog, name: str, mode: Mode) -> list[Outbound]:
    """Return, for each language, a mail for each hostile value in every text variable of the template."""
    template = catalog[name]
    texts = [variable.name for variable in template.variables.values() if variable.type == "text"]
    mails = []
    for language in LANGUAGES:
        for number, value in enumerate(HOSTILE):
            # An empty text counts as absent: a required one gets a space, which no template treats as absent.
            data = {text: value or (None if not template.variables[text].required else ".") for text in texts}
            person = f"{language}-{number}"
            links = MessageLinks(f"https://bank.example/u/{person}?a=1&b=2", f"https://bank.example/p/{person}")
            letter = replace(example_request(template, Channel.EMAIL, language, mode, data), links=links)
            mails.append(Outbound(person, Channel.EMAIL, f"{person}@home.example", template.render(letter)))
    return mails


@pytest.mark.parametrize("catalog", [templates, specialised])
@pytest.mark.parametrize(("name", "mode"), MAILS)
def test_batching_does_not_change_any_mail(sandbox: SandboxClient, catalog: Callable[[], Catalog], name: str, mode: Mode) -> None:
    mails = written(catalog(), name, mode)
    together, requests = arrived(sandbox, mails, 100)
    single, _ = arrived(sandbox, mails, 1)
    assert together == single
    assert requests <= 3 * len(LANGUAGES)  # languages, with the compiled paths of each


WORD = st.sampled_from(["a", "-", "^", "`", "0", "1-", "-^0-", "^0-", "-`1", "\u2500", "é", "\U0001f600", "\n", " "])
TEXT = st.lists(WORD, min_size=1, max_size=6).map("".join)
HTML = st.lists(WORD | st.just("shared line\n"), min_size=1, max_size=8).map("".join)
FAMILY: st.SearchStrategy[list[Email | MergedEmail]] = st.lists(
    st.builds(lambda s, h, t: replace(EMAIL, subject=s, html=h, text=t), TEXT, HTML, TEXT), max_size=9
)
GAPPED = st.lists(st.tuples(TEXT | st.just(""), st.integers(0, 3)), max_size=4).map(
    lambda parts: TextTemplate((*(words for words, _ in parts), "end"), tuple(gap for _, gap in parts))
)


@st.composite
def of_one_form(draw: st.DrawFn) -> list[Email | MergedEmail]:
    """Generate merged e-mails of one template."""
    form = MailTemplate(draw(GAPPED), draw(GAPPED), draw(GAPPED))
    rows = draw(st.lists(st.tuples(*[TEXT | st.just("")] * 4), max_size=5))
    return [MergedEmail(EMAIL.sender_name, EMAIL.sender_address, form, row) for row in rows]


FAMILIES = st.lists(FAMILY | of_one_form(), max_size=3).map(lambda families: [email for family in families for email in family])


@given(FAMILIES, st.randoms(use_true_random=False), st.integers(1, 10))
def test_tags_can_be_replaced_in_any_order(emails: list[Email | MergedEmail], random: Any, mails_max: int) -> None:
    mails = [Outbound(str(number), Channel.EMAIL, mailbox(number % 7), email) for number, email in enumerate(emails)]
    made = list(group_mails(mails, mails_max))
    assert Counter(mail.id for batch in made for mail in batch.mails) == Counter(mail.id for mail in mails)
    for batch in made:
        assert len({mail.address for mail in batch.mails}) == len(batch.mails) <= mails_max
        for mail, filling in zip(batch.mails, batch.values_by_tag, strict=True):
            email: Any = mail.content.assemble() if isinstance(mail.content, MergedEmail) else mail.content
            for part in ("subject", "html", "text"):
                assert filled(getattr(batch.template, part), filling, random) == getattr(email, part)


def filled(text: str, filling: Mapping[str, str], random: Any) -> str:
    """Replace tags one after the other in random order, as a provider may do: tags inside values would be replaced too."""
    tags = list(filling)
    random.shuffle(tags)
    for tag in tags:
        text = text.replace(tag, filling[tag])
    return text


# -- what goes together ------------------------------------------------------------------------------------------------


def mail(number: int, **changes: Any) -> Outbound:
    html = "\n".join(f"<p>paragraph {line} of all</p>" for line in range(50)) + f"\n<p>Dear person {number},</p>"
    return Outbound(f"m-{number}", Channel.EMAIL, mailbox(number), replace(EMAIL, **{"html": html, **changes}))


def test_shared_text_is_sent_once() -> None:
    (batch,) = group_mails([mail(number, subject=f"For person {number}") for number in range(10, 60)], 100)
    assert batch.template.html.count("paragraph 7 of all") == 1
    assert [dict(filling) for filling in batch.values_by_tag] == [{"-^0-": str(number)} for number in range(10, 60)]
    assert batch.template.subject == "For person -^0-"


def merged(number: int, form: MailTemplate, *values: str) -> Outbound:
    return replace(mail(number), content=MergedEmail(EMAIL.sender_name, EMAIL.sender_address, form, values))


def test_mails_of_one_template_share_a_request() -> None:
    form = MailTemplate(
        TextTemplate(("For ", ""), (0,)), TextTemplate(("<p>", " ", "", "</p>"), (1, 2, 2)), TextTemplate(("", "\n", ""), (0, 3))
    )
    mails = [merged(n, form, f"person {n}", f"person {n}", "line\n" * (n + 1), "the same") for n in range(50)]
    (batch,) = group_mails(mails, 100)
    assert (batch.template.subject, batch.template.html, batch.template.text) == (
        "For -^0-",
        "<p>-^0- -^1--^1-</p>",
        "-^0-\nthe same",
    )
    assert [dict(filling) for filling in batch.values_by_tag] == [
        {"-^0-": f"person {n}", "-^1-": "line\n" * (n + 1)} for n in range(50)
    ]


def test_mails_of_different_templates_are_not_mixed() -> None:
    words = TextTemplate(("same words ", ""), (0,))
    forms = [MailTemplate(words, words, words), MailTemplate(words, words, words)]
    mails = [merged(n, forms[n % 2], "x") for n in range(10)]
    assert sorted([sent.id for sent in batch.mails] for batch in group_mails(mails, 100)) == [
        [f"m-{n}" for n in range(first, 10, 2)] for first in (0, 1)
    ]


def test_tags_use_a_character_that_no_mail_contains() -> None:
    words = TextTemplate(("x|", ""), (0,))
    form = MailTemplate(words, words, words)
    (batch,) = group_mails([replace(merged(n, form, f"^{n}"), id=f"`{n}") for n in range(3)], 100)
    assert batch.template.subject == "x|-~0-"
    (batch,) = group_mails([merged(n, form, f"{n}^`~\\") for n in range(3)], 100)
    assert batch.template.subject == "x|-\u25000-"


def test_senders_sizes_and_repeated_addresses_split_batches() -> None:
    words = TextTemplate(("", ""), (0,))
    hollow = MailTemplate(words, words, words)
    parted = [
        [merged(1, hollow, ""), merged(2, hollow, "x")],
        [mail(1), mail(2, sender_address="news@other.example")],
        [mail(1), mail(2, sender_name="Other")],
        [mail(1), replace(mail(2), address=mailbox(1).upper())],
        [mail(1), mail(2, text="")],
        [mail(1), mail(2), mail(3, text="x" * (SUBSTITUTION_BYTES_MAX + 1))],
    ]
    assert [len(list(group_mails(mails, 100))) for mails in parted] == [2] * 6
    assert [len(batch.mails) for batch in group_mails([mail(number) for number in range(25)], 10)] == [10, 10, 5]


def test_each_language_has_its_own_shared_text() -> None:
    other = "\n".join(f"<p>alinéa {line} pour tous</p>" for line in range(50))
    mails = [mail(n) if n % 2 else mail(n, html=f"{other}\n<p>Bonjour {n},</p>") for n in range(40)]
    assert sorted(len(batch.mails) for batch in group_mails(mails, 100)) == [20, 20]


def test_each_mail_has_its_own_unsubscribe_link(sandbox: SandboxClient) -> None:
    mails = [mail(n, headers=(("List-Unsubscribe", f"<https://bank.example/u/{n}>"),)) for n in range(10)]
    contents, requests = arrived(sandbox, mails, 100)
    assert requests == 1
    for number in range(10):
        assert contents[f"m-{number}"]["headers"] == {"List-Unsubscribe": f"<https://bank.example/u/{number}>"}
        assert contents[f"m-{number}"]["custom_args"] == {"message_id": f"m-{number}"}


# -- a request's fate --------------------------------------------------------------------------------------------------


def test_a_refused_request_is_halved_to_isolate_bad_mails(sandbox: SandboxClient) -> None:
    guilty = {7, 8, 63}
    mails = [replace(mail(n), address="refused@home.example") if n in guilty else mail(n) for n in range(100)]
    first = sandbox.counts()["total"]
    results = {sent.id: result for sent, result in adapter(sandbox.url).send(mails, window_of(30))}
    assert {name for name, result in results.items() if isinstance(result, Rejected)} == {f"m-{n}" for n in guilty}
    rows = Counter(row["message_id"] for row in sandbox.log(after=first))
    assert rows == Counter(f"m-{n}" for n in range(100) if n not in guilty)


def named(request: ReceivedRequest) -> set[str]:
    return set(re.findall(r'"message_id": "(m-[0-9]+)"', request.body.decode()))


def test_a_lost_answer_affects_only_its_own_request() -> None:
    def script(request: ReceivedRequest, number: int) -> Answer:
        return LOST if "m-13" in named(request) else http_answer(202, b"", f"X-Message-Id: r-{number}")

    with http_server(script) as server:
        found = {
            sent.id: result
            for sent, result in adapter(f"http://127.0.0.1:{server.port}", 10).send([*map(mail, range(30))], window_of(30))
        }
        lost = next(named(request) for request in server.arrived if "m-13" in named(request))
        assert len(server.arrived) == 3
    assert {name for name, result in found.items() if isinstance(result, Uncertain)} == lost
    assert len(lost) == 10


def test_a_rate_limit_applies_to_all_mails_without_a_retry() -> None:
    answer = as_json(429, {"errors": [{"message": "too many requests"}]}, "X-RateLimit-Reset: 99999999999")
    with http_server(lambda *_: answer) as server:
        found = [result for _, result in adapter(f"http://127.0.0.1:{server.port}").send([*map(mail, range(30))], window_of(30))]
        assert len(server.arrived) == 1
    assert {type(result) for result in found} == {Throttled}


def test_a_mail_split_from_all_others_has_no_tags() -> None:
    def script(request: ReceivedRequest, number: int) -> Answer:
        alone = len(named(request)) == 1
        return http_answer(202, b"", f"X-Message-Id: r-{number}") if alone else as_json(400, {"errors": [{}]})

    with http_server(script) as server:
        found = list(adapter(f"http://127.0.0.1:{server.port}").send([mail(1), mail(2), mail(3)], window_of(30)))
        last = json.loads(server.arrived[-1].body)
    assert all(isinstance(result, Receipt) for _, result in found)
    assert "substitutions" not in last["personalizations"][0]


def test_halves_contain_every_mail_once() -> None:
    (batch,) = group_mails([*map(mail, range(7))], 100)
    halves: tuple[MailBatch, ...] = batch.halves()
    assert [part.id for half in halves for part in half.mails] == [part.id for part in batch.mails]
    assert [len(half.mails) for half in halves] == [4, 3]
