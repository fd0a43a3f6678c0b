"""Rows added to a waiting campaign: by API and console as by the command line, and with the links of the rows before them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from dispatcher.campaigns import overview, row_addition, submission
from dispatcher.campaigns.row_addition import RowSource
from dispatcher.campaigns.submission import SubmitStatus
from dispatcher.intake.audience import inline
from dispatcher.intake.audience_reference import AudienceSources
from dispatcher.intake.campaign import parse_request
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import DeliveryLimits, Services
from dispatcher.web.api_keys import Right, new_key, read_keys
from dispatcher.web.app import create
from tests.support.people import sign_in
from tests.support.services import Broker, Clock, add_people, make_services, person, work

TRAIN = "https://tickets.train.example/weekend"
ACCEPT = {"Accept": "text/html"}


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        yield made


def row(recipient_id: str, link: str = TRAIN, **data: Any) -> dict[str, Any]:
    return {"recipient": recipient_id, "data": {"partner": "Train Shop", "discount": 40, "offer_url": link, **data}}


def submit(services: Services, *rows: Any, by: str = "shop") -> None:
    """A campaign that waits, because most of its rows are unreadable."""
    bad = [{"recipient": "?"}] * (len(rows) + 1)
    form = {"id": "trains", "template": "train_ticket", "channels": ["email"], "audience": [*rows, *bad]}
    submission.accept(services, parse_request(form), by=by)


def add(services: Services, *rows: Any) -> row_addition.AddedRows | None:
    return row_addition.add_rows(services, "trains", RowSource(inline(rows), "rows"), "shop")


def recipients(services: Services) -> list[str]:
    with lend(services.pool) as connection:
        return [each for (each,) in connection.execute("SELECT recipient_id FROM jobs ORDER BY line, recipient_id")]


# -- links to partners -------------------------------------------------------------------------------------------------


def test_added_rows_have_the_partners_link_of_the_campaign(services: Services) -> None:
    submit(services, row("c-1"))
    with pytest.raises(BadInput) as caught:
        add(services, row("c-2", f"{TRAIN}/c-2"), row("c-3", f"{TRAIN}/c-2"))
    assert [(error.line, error.field) for error in caught.value.faults] == [(1, "data.offer_url"), (2, "data.offer_url")]
    assert "that of the rows that the campaign has" in caught.value.faults[0].message
    assert recipients(services) == ["c-1"]
    added = add(services, row("c-2", TRAIN.upper().replace("/WEEKEND", "/weekend")))
    assert added is not None
    assert added.added == 1


@pytest.mark.parametrize("later", [f"{TRAIN}/c-8", f"\u00a0{TRAIN}/c-8"])
@pytest.mark.parametrize("first", [TRAIN, f"\u00a0{TRAIN}"])
def test_a_resumed_load_finds_another_partners_link(services: Services, tmp_path: Path, first: str, later: str) -> None:
    """The first part has been read by another process; what its cells mean is known only to the ledger."""
    services = replace(services, limits=DeliveryLimits(part_rows=3))
    lines = [f"c-{n};Train Shop;40;{later if n == 8 else first}" for n in range(9)]
    lines.insert(0, f"c-x;Train Shop;much;{TRAIN}/c-x")  # not readable: it is not compared
    path = tmp_path / "a.csv"
    path.write_text("recipient;data.partner;data.discount;data.offer_url\n" + "\n".join(lines))
    form = {"id": "trains", "template": "train_ticket", "channels": ["email"], "audience": str(path)}
    add_people(services, *(person(f"c-{n}", n, offers={"partner": "tailored"}) for n in range(9)))

    def load() -> None:
        result = submission.accept(services, parse_request(form, AudienceSources(tmp_path)), seconds_max=0)
        while result.status is SubmitStatus.LOADING and result.load is not None:
            result = submission.load_some(services, result.load, seconds_max=0)

    with pytest.raises(BadInput) as caught:
        load()
    assert [(error.line, error.field) for error in caught.value.faults] == [(11, "data.offer_url")]
    assert overview.find(services, "trains") is None
    work(services)
    assert recipients(services) == []
    path.write_text(path.read_text().replace("weekend/c-8", "weekend"))
    load()
    assert len(recipients(services)) == 9


# -- API ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(services: Services, tmp_path: Path) -> Iterator[TestClient]:
    made = {name: new_key(name, [right.value for right in rights]) for name, rights in KEYS.items()}
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(line for _, line in made.values()))
    with TestClient(create(services, Broker(), read_keys(file)), base_url="https://dispatcher.example") as opened:
        opened.keys = {name: key for name, (key, _) in made.items()}  # type: ignore[attr-defined]
        yield opened


KEYS = {"shop": [Right.CAMPAIGNS], "other": [Right.CAMPAIGNS], "reader": [Right.CONSOLE]}


def post(client: TestClient, path: str, body: Any, name: str = "shop") -> Response:
    keys = client.keys  # type: ignore[attr-defined]
    return client.post(f"/v1/campaigns/{path}", content=json.dumps(body), headers={"Authorization": f"Bearer {keys[name]}"})


def test_rows_are_added_by_api(services: Services, client: TestClient) -> None:
    submit(services, row("c-1"))
    answer = post(client, "trains/rows", {"audience": [row("c-2"), row("c-3", discount="much")]})
    assert answer.status_code == 200, answer.text
    fault = {"line": 2, "field": "data.discount", "message": "must be a number such as 12.50"}
    assert answer.json() == {
        "id": "trains", "state": "awaiting_release", "audience": 2, "added": 1, "invalid": 1, "faults": [fault]
    }  # fmt: skip
    assert recipients(services) == ["c-1", "c-2"]


def test_the_api_refuses_rows_with_the_same_texts(services: Services, client: TestClient) -> None:
    submit(services, row("c-1"))
    more = {"audience": [row("c-2")]}
    assert post(client, "trains/rows", more, "reader").status_code == 403
    assert post(client, "planes/rows", more).status_code == 404
    other = post(client, "trains/rows", more, "other")
    assert (other.status_code, other.json()["detail"]) == (409, "it was submitted by shop, who alone can add rows")
    link = post(client, "trains/rows", {"audience": [row("c-2", f"{TRAIN}/c-2")]})
    assert (link.status_code, link.json()["errors"][0]["field"]) == (422, "data.offer_url")
    wrong: list[dict[str, Any]] = [{}, {"audience": []}, {"audience": "rows.csv"}, {**more, "by": "shop"}]
    for body in wrong:
        assert post(client, "trains/rows", body).status_code == 422
    assert post(client, "trains/cancel", {}).status_code == 200
    late = post(client, "trains/rows", more)
    assert (late.status_code, late.json()["detail"]) == (409, "cannot add rows to a campaign that is cancelled")
    assert recipients(services) == ["c-1"]


# -- console -----------------------------------------------------------------------------------------------------------

PAGE = "/console/campaigns/trains"


def upload(client: TestClient, token: str, content: str, name: str = "mended.csv") -> Response:
    files = {"file": (name, content.encode())}
    return client.post(f"{PAGE}/rows", data={"form_token": token}, files=files, headers=ACCEPT, follow_redirects=False)


HEADER = "recipient;data.partner;data.discount;data.offer_url\n"


def test_rows_are_added_in_the_console(services: Services, client: TestClient) -> None:
    submit(services, row("c-1"), by="user:shop")
    token = sign_in(client, services, "shop")
    assert f'action="{PAGE}/rows"' in client.get(PAGE, headers=ACCEPT).text
    answer = upload(client, token, f"{HEADER}c-2;Train Shop;40;{TRAIN}\nc-3;Train Shop;much;{TRAIN}\n")
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
    assert "1 rows were added, 1 could not be read" in client.get(PAGE, headers=ACCEPT).text
    assert recipients(services) == ["c-1", "c-2"]


def test_the_console_says_why_no_row_was_added(services: Services, client: TestClient) -> None:
    submit(services, row("c-1"), by="user:shop")
    token = sign_in(client, services, "shop")
    for content, name, message in (
        (f"{HEADER}c-2;Train Shop;40;{TRAIN}/c-2\n", "mended.csv", "mended.csv:2: data.offer_url: is another link"),
        ("recipient;nonsense\nc-2;x\n", "../../mended.csv", "mended.csv:1: nonsense: unknown column, number 2"),
        ("x", "mended.exe", "mended.exe: should be a .jsonl, .csv or .xlsx file"),
        ("x", "mended.xlsx", "mended.xlsx: is not an .xlsx workbook"),
    ):
        answer = upload(client, token, content, name)
        assert answer.status_code == 422
        assert message in answer.text.replace("&#39;", "'")
        assert "No row was added" in answer.text
        assert "/tmp" not in answer.text
    assert "choose a" in client.post(f"{PAGE}/rows", data={"form_token": token}, headers=ACCEPT).text
    assert upload(client, "0" * 64, HEADER).status_code == 403
    other = upload(client, sign_in(client, services, "other"), f"{HEADER}c-2;Train Shop;40;{TRAIN}\n")
    assert other.status_code == 409
    assert "it was submitted by user:shop, who alone can add rows" in other.text
    assert f'action="{PAGE}/rows"' not in client.get(PAGE, headers=ACCEPT).text  # what cannot be done is not offered
    assert recipients(services) == ["c-1"]
