"""Recipients by API: streams of lines with a result each, one person with what the caller asks for, search by address."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from dispatcher.consent import preferences
from dispatcher.web.app import create
from tests.integration.test_api import Desk, keys_for, open_desk
from tests.support.services import Broker, add_people, person

STREAM = "application/x-ndjson"


@pytest.fixture
def desk(database: str, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(database, tmp_path) as opened:
        yield opened


def lines(*documents: Any) -> bytes:
    return b"".join((document if isinstance(document, bytes) else json.dumps(document).encode()) + b"\n" for document in documents)


def stream(desk: Desk, *documents: Any) -> list[dict[str, Any]]:
    answer = desk.call("POST", "/v1/recipients/bulk", lines(*documents), Content_Type=STREAM)
    assert (answer.status_code, answer.headers["content-type"]) == (200, STREAM)
    return [json.loads(line) for line in answer.text.splitlines()]


def test_each_line_of_a_stream_has_a_result(desk: Desk) -> None:
    results = stream(
        desk, person("c-1"), b"", b"{", {**person("c-2"), "language": "es"}, person("c-1", language="fr"), person("c-1")
    )
    assert [(each["line"], each["outcome"], each["field"]) for each in results] == [
        (1, "new", ""),
        (3, "rejected", ""),
        (4, "rejected", "language"),
        (5, "changed", ""),
        (6, "changed", ""),
    ]
    assert "not JSON" in results[1]["message"]


def test_a_stream_that_is_sent_again_changes_nothing(desk: Desk) -> None:
    people = [person(f"c-{n}", n) for n in range(5)]
    assert {each["outcome"] for each in stream(desk, *people)} == {"new"}
    before = desk.call("GET", "/v1/recipients/c-3?include=addresses,profile").json()
    assert {each["outcome"] for each in stream(desk, *people)} == {"unchanged"}
    assert desk.call("GET", "/v1/recipients/c-3?include=addresses,profile").json() == before


def test_the_opt_out_of_a_rejected_line_is_recorded(desk: Desk) -> None:
    (result,) = stream(desk, {"id": "c-1", "email": "nobody", "person": "customer", "channels": {"email": False}})
    assert (result["outcome"], result["opt_outs"]) == ("rejected", ["channel:email"])
    assert preferences.show(desk.services, "c-1").choices["channel:email"].value == "off"


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "c-1", "channels": {"email": false}, "x": "\xeb"}',
        b'{"id": "c-1", "channels": {"email": false}, "channels": {"email": true}}',
        b'{"id": "c-1", "channels": {"email": false}, "x": "\\u0000"}',
        b'{"id": "c-1", "channels": {"email": false}, "x": 1e999}',
        b'{"id": "c-1", "channels": {"email": false}} {"id": "c-2", "channels": {"email": true}}',
        b'{"id": "c-1", "channels": {"email": false}',
        b'{"id": "c-1", "channels": {"email": false}, "x": "' + b"a" * 300_000 + b'"}',
        b'{"id": "c-1", "channels": {"email": false}, "x": [' + b"1," * 60_000 + b"1]}",
    ],
    ids=["byte", "twice", "null", "number", "two", "cut", "long", "many"],
)
def test_the_opt_out_of_an_unreadable_line_is_recorded(desk: Desk, line: bytes) -> None:
    answer = desk.call("POST", "/v1/recipients/bulk", line + b"\n\xeb\n", Content_Type="application/x-ndjson")
    result, other = (json.loads(each) for each in answer.text.splitlines())
    assert (result["line"], result["id"], result["outcome"], result["opt_outs"]) == (1, "c-1", "rejected", ["channel:email"])
    assert (other["line"], other["outcome"], other["opt_outs"]) == (2, "rejected", [])
    assert preferences.show(desk.services, "c-1").choices["channel:email"].value == "off"


def test_results_come_while_lines_are_still_sent(desk: Desk) -> None:
    """A client that has sent a thousand lines has their results before it sends the next: neither side holds all of them."""
    keys, broker = desk.client.app.state.keys, Broker()  # type: ignore[attr-defined]
    config = uvicorn.Config(create(desk.services, broker, keys), port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        with socket.create_connection(listener.getsockname()) as caller:
            caller.settimeout(30)
            head = f"POST /v1/recipients/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {desk.key}\r\n"
            caller.sendall(f"{head}Content-Type: {STREAM}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode())
            caller.sendall(chunk(lines(*(person(f"c-{n}") for n in range(1_000)))))
            early = b""
            while early.count(b'"outcome":"new"') < 1_000:
                early += caller.recv(65_536)
            caller.sendall(chunk(lines(person("c-last"))) + b"0\r\n\r\n")
            rest = b""
            while part := caller.recv(65_536):
                rest += part
        server.should_exit = True
        thread.join()
    assert b'"line":1001,"id":"c-last","outcome":"new"' in rest


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def test_choices_of_many_people_are_recorded_line_by_line(desk: Desk) -> None:
    add_people(desk.services, person("c-1"), person("c-2"))
    version = preferences.show(desk.services, "c-2").version
    said = {"source": "branch", "actor": "desk 12"}
    documents = [
        {"recipient": "c-1", "channels": {"email": False}, **said},
        {"recipient": "c-2", "offers": {"own": "none"}, "version": version + 1, **said},
        {"recipient": "nobody", "channels": {"email": False}, **said},
        {"recipient": "c-2", "channels": {"fax": False}, **said},
        {"recipient": "c-2", "offers": {"own": "none"}, "version": version, **said},
        b"[]",
    ]
    for outcomes in (["recorded", "conflict", "unknown", "rejected", "recorded", "rejected"], ["unchanged"]):
        answer = desk.call("POST", "/v1/preferences/bulk", lines(*documents[: len(outcomes)]), Content_Type=STREAM)
        assert [json.loads(line)["outcome"] for line in answer.text.splitlines()] == outcomes
    assert preferences.show(desk.services, "c-1").choices["channel:email"].value == "off"
    assert len(desk.broker.dues) == 2  # acknowledgements


def test_a_person_is_shown_without_what_is_not_asked_for(desk: Desk) -> None:
    add_people(desk.services, person("c-1", profile={"identity": {"first_name": "Marie"}}, push=[]))
    answer = desk.call("GET", "/v1/recipients/c-1")
    shown = answer.json()
    assert shown["reachable"] == {"email": True, "sms": True, "whatsapp": True, "push": False}
    assert not {"email", "phone", "whatsapp", "push", "profile"} & shown.keys()
    assert "Marie" not in answer.text
    assert "@" not in answer.text
    assert answer.headers["etag"] == f'"{shown["version"]}"'
    assert desk.call("GET", "/v1/recipients/c-1?include=profile").json()["profile"] == {"identity": {"first_name": "Marie"}}
    assert desk.call("GET", "/v1/recipients/c-1?include=addresses").json()["email"] == "c-1@example.org"
    assert desk.call("GET", "/v1/recipients/c-1?include=all").status_code == 422
    assert desk.call("GET", "/v1/recipients/nobody").status_code == 404


def test_people_are_found_by_address_in_the_body(desk: Desk) -> None:
    add_people(desk.services, person("c-1", 7), person("c-2", 7), person("c-3", 8))
    assert desk.call("POST", "/v1/recipients/search", {"address": "0470 00 00 07"}).json() == {"ids": ["c-1", "c-2"]}
    assert desk.call("POST", "/v1/recipients/search", {"address": "C-3@example.org"}).json() == {"ids": ["c-3"]}
    assert desk.call("POST", "/v1/recipients/search", {"address": "nobody"}).status_code == 422


def test_an_access_request_gets_everything_on_record(desk: Desk) -> None:
    add_people(desk.services, person("c-1"))
    exported = desk.call("GET", "/v1/recipients/c-1/export").json()
    assert exported["email"] == "c-1@example.org"
    assert len(exported["consent"]) == 6
    assert {"messages", "jobs", "answers", "profile"} <= exported.keys()


def test_a_key_without_the_right_for_recipients_sees_nobody(desk: Desk, tmp_path: Path) -> None:
    add_people(desk.services, person("c-1"))
    keys, plain = keys_for(tmp_path, other=["preferences", "suppressions"])
    with TestClient(create(desk.services, Broker(), keys)) as client:
        for method, path in (("GET", "/c-1"), ("GET", "/c-1/export"), ("POST", "/search"), ("POST", "/bulk")):
            answer = client.request(method, f"/v1/recipients{path}", headers={"Authorization": f"Bearer {plain['other']}"})
            assert answer.status_code == 403


def test_a_stream_of_another_type_is_refused(desk: Desk) -> None:
    assert desk.call("POST", "/v1/recipients/bulk", b"{}", Content_Type="application/json").status_code == 415
