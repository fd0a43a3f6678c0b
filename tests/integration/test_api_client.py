"""The Python client against the API on a real socket, and its retries against a transport that fails."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from dispatcher.client import ApiRefusal, ApiUnavailable, AsyncClient, CallRetries, Client, FeedBroken, FeedPosition
from dispatcher.client.documents import Campaign, PreferencesLine, Recipient
from dispatcher.client.event_chain import check_page
from dispatcher.events import publication
from tests.integration.test_api import LOAN, Desk, open_desk
from tests.support.services import add_people, person
from tests.support.web_server import serving

AT_ONCE = CallRetries(attempts_max=3, first_wait_seconds=0.0)


@pytest.fixture
def desk(database: str, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(database, tmp_path) as opened:
        services = replace(opened.services, audiences=tmp_path / "audiences")
        opened.client.app.state.services = services  # type: ignore[attr-defined]
        yield opened


@pytest.fixture
def url(desk: Desk) -> Iterator[str]:
    with serving(desk.client.app) as address:  # type: ignore[arg-type]
        yield address


@pytest.fixture
def client(desk: Desk, url: str) -> Iterator[Client]:
    with Client(url, desk.key, AT_ONCE) as opened:
        yield opened


def spring(*recipients: str, **changes: Any) -> Campaign:
    rows = [{"recipient": recipient, "data": LOAN} for recipient in recipients]
    return cast("Campaign", {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, **changes})


def people(*numbers: int) -> list[Recipient]:
    return [cast("Recipient", person(f"c-{number}")) for number in numbers]


class Broken(httpx.BaseTransport):
    """A connection that breaks in these calls, counted from 1: before the server has read them, or after."""

    def __init__(self, *calls: int, after: bool = True) -> None:
        self._inner, self._calls, self._after, self._count = httpx.HTTPTransport(), calls, after, count(1)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        breaks = next(self._count) in self._calls
        if breaks and not self._after:
            raise httpx.ConnectError("refused")
        response = self._inner.handle_request(request)
        if breaks:
            response.read()
            raise httpx.ReadError("cut")
        return response


def answering(*answers: tuple[int, dict[str, str]]) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A server that answers so, in turn, and the requests that it got."""
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        status, headers = answers[len(requests)]
        requests.append(request)
        problem = {"title": "T", "status": status, "detail": "why", "errors": [{"field": "id", "message": "is bad", "line": 3}]}
        return httpx.Response(status, headers=headers, json=problem)

    return httpx.MockTransport(handle), requests


def test_a_campaign_from_dry_run_to_its_messages(desk: Desk, client: Client) -> None:
    add_people(desk.services, person("anna"), person("bea", 2))
    assert client.dry_run_campaign(spring("anna", "bea"))["states"] == {"sendable": 2}
    assert client.list_campaigns()["campaigns"] == []
    later = spring("anna", "bea", send_at="2026-11-23T15:00:00+00:00")
    assert client.submit_campaign(later)["audience"] == 2
    assert client.submit_campaign(later)["audience"] == 2  # the same id
    version = client.show_campaign("spring")["version"]
    edited = client.edit_campaign("spring", {"rate_per_second": 5.0}, if_match=version)
    assert edited["rate_per_second"] == 5.0
    with pytest.raises(ApiRefusal) as refusal:
        client.edit_campaign("spring", {"rate_per_second": 9.0}, if_match=version)
    assert refusal.value.status == 412
    assert client.act_on_campaign("spring", "cancel")["state"] == "cancelled"
    assert [each["recipient"] for each in client.all_messages(campaign="spring", limit=1)] == ["bea", "anna"]


def test_a_refusal_names_the_field(client: Client) -> None:
    with pytest.raises(ApiRefusal, match="template") as refusal:
        client.submit_campaign(spring("anna", template="nothing"))
    assert (refusal.value.status, refusal.value.errors[0]["field"]) == (422, "template")


def test_the_asynchronous_client_does_the_same(desk: Desk, url: str) -> None:
    add_people(desk.services, person("anna"))
    publication.publish(desk.services)

    async def program() -> list[Any]:
        async with AsyncClient(url, desk.key, AT_ONCE) as client:
            accepted = await client.submit_campaign(spring("anna"))
            results = [each["outcome"] async for each in client.put_recipients(people(1, 2))]
            batches = [batch async for batch in client.read_feed()]
            return [accepted["audience"], results, len(batches), (await client.show_recipient("c-1"))["id"]]

    assert asyncio.run(program()) == [1, ["new", "new"], 1, "c-1"]


def test_a_trigger_is_accepted_once_where_the_answer_is_lost(desk: Desk, url: str) -> None:
    add_people(desk.services, person("anna"))
    with Client(url, desk.key, AT_ONCE, transport=Broken(1)) as client:
        sent = client.send_message({"recipient": "anna", "template": "optout_acknowledgement", "data": {"scope": "email"}})
        assert [each["id"] for each in client.all_messages(recipient="anna")] == [sent["id"]]
        assert client.show_message(sent["id"])["recipient"] == "anna"


def test_an_upload_that_is_cut_goes_on_where_it_was(desk: Desk, url: str, tmp_path: Path) -> None:
    file = tmp_path / "spring.csv"
    file.write_text("recipient,note\n" + "".join(f"c-{n},{'x' * 90}\n" for n in range(60_000)))  # 5.6 MB: six parts
    with Client(url, desk.key, AT_ONCE, transport=Broken(2, 4)) as client:
        upload = client.upload_audience_file("spring.csv", file)
        assert (upload["complete"], upload["received"]) == (True, file.stat().st_size)
        assert client.upload_audience_file("spring.csv", file)["sha256"] == upload["sha256"]
        file.write_text("recipient\nc-1\n")
        with pytest.raises(ApiRefusal, match="other content"):
            client.upload_audience_file("spring.csv", file)
        packed = client.upload_audience_file("small.csv", file, pack=True)
        assert (packed["gzip"], packed["size"]) == (True, file.stat().st_size)


def test_people_are_put_in_calls_of_a_thousand_lines(desk: Desk, url: str) -> None:
    with Client(url, desk.key, AT_ONCE, transport=Broken(2)) as client:
        results = list(client.put_recipients(people(*range(2_500))))
        assert [each["line"] for each in results] == list(range(1, 2_501))
        outcomes = [each["outcome"] for each in results]
        assert outcomes == ["new"] * 1_000 + ["repeated"] * 1_000 + ["new"] * 500  # the answers of the second call were lost


def test_a_row_that_is_no_json_is_rejected_and_the_stream_goes_on(client: Client) -> None:
    first, second, third, last = people(*range(4))
    broken = [{**second, "timezone": "\ud800"}, {**third, "has_current_account": math.nan}]
    results = list(client.put_recipients([first, *cast("list[Recipient]", broken), last]))
    assert [(each["line"], each["outcome"]) for each in results] == [(1, "new"), (2, "rejected"), (3, "rejected"), (4, "new")]


def test_a_program_that_was_ended_resumes_its_upload(client: Client) -> None:
    first = client.put_recipients(people(*range(1_500)), upload_id="nightly")
    next(first)  # the first thousand are taken
    del first
    rest = list(client.put_recipients(people(*range(1_500)), upload_id="nightly", resume=True))
    assert [(each["line"], each["outcome"]) for each in rest] == [(n, "new") for n in range(1_001, 1_501)]
    again = list(client.put_recipients(people(*range(1_500)), upload_id="nightly", resume=1))
    assert [(each["line"], each["outcome"]) for each in again] == [(n, "repeated") for n in range(2, 1_501)]


def test_choices_are_read_and_changed_if_nobody_else_did(desk: Desk, client: Client) -> None:
    add_people(desk.services, person("anna"))
    assert client.search_recipients({"address": "anna@example.org"})["ids"] == ["anna"]
    assert "email" in client.show_recipient("anna", include="addresses")
    version = client.show_preferences("anna")["version"]
    said = {"source": "branch", "actor": "desk 12"}
    changed = client.put_preferences("anna", {"channels": {"email": False}, **said}, if_match=version)  # type: ignore[typeddict-item]
    assert changed["channels"]["email"] is False
    with pytest.raises(ApiRefusal, match="changed by somebody else"):
        client.put_preferences("anna", {"channels": {"email": True}, **said}, if_match=version)  # type: ignore[typeddict-item]
    lines = [PreferencesLine(recipient="anna", channels={"push": False}, source="branch", actor="desk 12")]
    assert [each["outcome"] for each in client.record_preferences(lines)] == ["recorded"]
    assert client.export_recipient("anna")["id"] == "anna"


def test_suppressions_come_in_and_out(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("channel,address,reason,source,since\nemail,gone@example.org,hard_bounce,old_provider,2026-01-02\n")
    assert client.import_suppressions(file)["suppressed"] == 1
    (found,) = client.search_suppressions({"address": "gone@example.org"})["suppressions"]
    assert len(list(client.export_suppressions())) == 2
    assert client.lift_suppression(found["no"], {"reason": "a mistake"})["lifted_because"] == "a mistake"
    with pytest.raises(ApiRefusal):
        list(client.export_suppressions(reason="Not A Word"))


def test_the_feed_is_checked_and_followed(desk: Desk, client: Client) -> None:
    add_people(desk.services, person("anna"))
    publication.publish(desk.services)
    (batch,) = client.read_feed()
    assert batch.events[-1]["type"].startswith("dispatcher.consent.")
    assert list(client.read_feed(batch.position)) == []
    with pytest.raises(FeedBroken, match="not the one that was read before"):
        list(client.read_feed(FeedPosition(1, "00" * 32)))
    assert len(list(client.read_feed(types=["consent"]))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda page: page["events"].pop(0), "event 1 is missing"),
        (lambda page: page["events"].pop(), "changed"),
        (lambda page: page["events"][0].update(subject="bea"), "changed"),
    ],
)
def test_a_changed_page_of_the_feed_is_noticed(desk: Desk, change: Callable[[Any], Any], message: str) -> None:
    add_people(desk.services, person("anna"))
    publication.publish(desk.services)
    page = json.loads(desk.call("GET", "/v1/events").text)
    assert check_page(FeedPosition(), page).position == FeedPosition(page["next"], page["hash"])
    change(page)
    with pytest.raises(FeedBroken, match=message):
        check_page(FeedPosition(), page)


def test_templates_and_test_sends(desk: Desk, client: Client) -> None:
    names = {each["name"] for each in client.list_templates()["templates"]}
    assert names == set(desk.services.catalog)
    assert client.list_test_sends("loan_offer")["tests"] == []


@pytest.mark.parametrize(("status", "wait"), [(503, "0"), (429, "0"), (502, None)])
def test_a_call_is_repeated_where_the_server_could_not_work(status: int, wait: str | None) -> None:
    transport, requests = answering((status, {"Retry-After": wait} if wait else {}), (200, {}))
    with Client("http://x", "k", AT_ONCE, transport=transport) as client:
        client.show_campaign("spring")
    assert len(requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 413, 422])
def test_a_refusal_is_never_repeated_and_has_its_problem(status: int) -> None:
    transport, requests = answering((status, {}))
    with (
        Client("http://x", "k", AT_ONCE, transport=transport) as client,
        pytest.raises(ApiRefusal, match=r"line 3, id: is bad") as e,
    ):
        client.show_campaign("spring")
    assert (len(requests), e.value.status, e.value.detail, e.value.errors[0].get("line")) == (1, status, "why", 3)


def test_a_wait_that_is_too_long_ends_the_attempts() -> None:
    transport, requests = answering((503, {"Retry-After": "3600"}))
    with Client("http://x", "k", AT_ONCE, transport=transport) as client, pytest.raises(ApiUnavailable):
        client.show_campaign("spring")
    assert len(requests) == 1


def test_what_must_not_happen_twice_is_not_repeated_if_the_outcome_is_unknown(desk: Desk, url: str) -> None:
    with Client(url, desk.key, AT_ONCE, transport=Broken(1)) as client, pytest.raises(ApiUnavailable, match="outcome is not known"):
        client.rotate_secret("crm")
    with Client(url, desk.key, AT_ONCE, transport=Broken(1, after=False)) as client, pytest.raises(ApiRefusal, match="404"):
        client.rotate_secret("crm")  # the first attempt never reached the server
    transport, requests = answering((503, {}))
    with Client("http://x", "k", AT_ONCE, transport=transport) as client, pytest.raises(ApiUnavailable):
        client.rotate_secret("crm")
    assert len(requests) == 1
