"""The reader's own links are made where a text uses them, and are the same as links made beforehand."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.base import Channel, Push, assemble
from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, message_id_token
from dispatcher.content import Catalog, LinkHosts, MessageLinks, RenderRequest, example_request, host_of
from dispatcher.content.guard import PUSH_BYTES_MAX, ContentRequirements, failed_check
from dispatcher.delivery.token_links import TokenLinks
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message_id import MessageId
from tests.support.services import specialised_templates, templates

SECRET, URL = KeyRing.of(b"a secret of the tests"), "https://messages.bank.example"
REF = MessageId(202611, 7, 42, 1)


class UnreadableLinks:
    """Links of which no text may read one."""

    hosts = frozenset({"messages.bank.example"})

    @property
    def unsubscribe(self) -> NoReturn:
        raise AssertionError

    preferences = unsubscribe


@cache
def specialised() -> Catalog:
    return specialised_templates(lambda: 1.0)  # never renders a text both ways


def ready() -> MessageLinks:
    tokens = [message_id_token(SECRET, purpose, REF) for purpose in (UNSUBSCRIBE, PREFERENCES)]
    return MessageLinks(f"{URL}/u/{tokens[0]}", f"{URL}/p/{tokens[1]}")


def sent_request(name: str, channel: Channel) -> RenderRequest:
    """A request whose links may name the bank's hosts and each host that the examples name."""
    template = specialised()[name]
    request = example_request(template, channel, "fr", max(template.info.modes))
    hosts = {host_of(value): frozenset[str]() for value in request.data.values() if isinstance(value, str) and host_of(value)}
    return replace(
        request,
        sender=replace(
            request.sender, hosts=LinkHosts(frozenset({"example" if channel is Channel.EMAIL else "bank.example"}), hosts)
        ),
    )


CASES = [(name, channel) for name in sorted(templates()) for channel in templates()[name].channels]


@pytest.mark.parametrize(("name", "channel"), CASES)
def test_links_made_on_demand_change_no_message(name: str, channel: Channel) -> None:
    request, template = sent_request(name, channel), specialised()[name]
    for _ in range(2):  # with a new path, and along it
        on_demand, beforehand = (
            template.render(replace(request, links=links)) for links in (TokenLinks(SECRET, URL, REF), ready())
        )
        assert assemble(on_demand) == assemble(beforehand)


def test_links_of_both_kinds_have_the_same_hosts() -> None:
    for url in (URL, "http://127.0.0.1:8000", "https://[::1]", "https://a b"):
        ready_links = MessageLinks(f"{url}/u/x", f"{url}/p/x")
        assert TokenLinks(SECRET, url, REF).hosts == ready_links.hosts


@pytest.mark.parametrize("name", ["loan_offer", "train_ticket", "coin_offer"])
def test_a_push_makes_no_token_on_a_known_path(name: str) -> None:
    request, template = sent_request(name, Channel.PUSH), specialised()[name]
    template.render(request)  # compiles the path
    template.render(replace(request, links=UnreadableLinks()))


@given(st.lists(st.sampled_from(["a" * 640, "€" * 640, "\0" * 64, '"' * 640, "x"]), max_size=7))
def test_the_size_of_a_push_is_that_of_its_json(pieces: list[str]) -> None:
    push = Push("Title", "".join(pieces))
    size = len(json.dumps({"title": push.title, "body": push.body, "link": "", "data": {}}, ensure_ascii=False).encode())
    failed = failed_check(push, "", ContentRequirements(commercial=False, warning="", mark="", sender=""))
    assert failed == ("push_size" if size > PUSH_BYTES_MAX else None)
