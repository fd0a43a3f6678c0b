"""Streams of recipients and choices under an upload id: they are resumed where they were cut, and no line is applied twice."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dispatcher.consent import preferences
from dispatcher.consent.preferences import LineTaken, PreferenceChange, UploadStep
from dispatcher.consent.recipient_stream import StreamLine, put_lines
from dispatcher.domain.preferences import changes
from dispatcher.ledger.consent.line_uploads import LineUpload, line_hash
from dispatcher.maintenance import retention
from dispatcher.web.app import create
from tests.integration.test_api import ALL_RIGHTS, Desk, keys_for, open_desk
from tests.support.services import Broker, add_people, person

RECIPIENTS, PREFERENCES = "/v1/recipients/bulk", "/v1/preferences/bulk"
SAID = {"source": "branch", "actor": "desk 12"}


@pytest.fixture
def desk(database: str, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(database, tmp_path) as opened:
        yield opened


def send(desk: Desk, path: str, *documents: Any, first: int = 1, upload: str = "nightly") -> tuple[int, list[tuple[int, str]]]:
    """The lines taken before this call, and the outcome of each line."""
    body = b"".join(json.dumps(document).encode() + b"\n" for document in documents)
    headers = {"Content_Type": "application/x-ndjson", "Upload_Id": upload, "Upload_Line": str(first)}
    answer = desk.call("POST", path, body, **headers)
    assert answer.status_code == 200, answer.text
    results = [json.loads(line) for line in answer.text.splitlines()]
    return int(answer.headers["Upload-Taken"]), [(each["line"], each["outcome"]) for each in results]


def test_a_resumed_stream_numbers_its_lines_on(desk: Desk) -> None:
    people = [person(f"c-{n}") for n in range(1, 5)]
    assert send(desk, RECIPIENTS, *people[:2]) == (0, [(1, "new"), (2, "new")])
    assert send(desk, RECIPIENTS) == (2, [])  # a call without a line asks how far it is
    assert send(desk, RECIPIENTS, *people[2:], first=3) == (2, [(3, "new"), (4, "new")])


def test_a_line_sent_again_does_not_undo_a_later_change(desk: Desk) -> None:
    send(desk, RECIPIENTS, person("c-1", language="nl"), person("c-2"))
    assert desk.call("PUT", "/v1/recipients/c-1", person("c-1", language="fr")).status_code == 200
    results = send(desk, RECIPIENTS, person("c-1", language="nl"), person("c-2"), person("c-3"))
    assert results == (2, [(1, "repeated"), (2, "repeated"), (3, "new")])
    assert desk.call("GET", "/v1/recipients/c-1").json()["language"] == "fr"


def test_an_opt_in_sent_again_does_not_undo_a_later_opt_out(desk: Desk) -> None:
    add_people(desk.services, person("c-1"))
    opt_in = {"recipient": "c-1", "channels": {"email": True}, **SAID}
    send(desk, PREFERENCES, opt_in)
    desk.call("PUT", "/v1/recipients/c-1/preferences", {"channels": {"email": False}, **SAID})
    assert send(desk, PREFERENCES, opt_in) == (1, [(1, "repeated")])
    assert preferences.show(desk.services, "c-1").choices["channel:email"].value == "off"


def test_a_choice_is_committed_together_with_its_position(desk: Desk) -> None:
    """A server that is killed in mid-batch must not record the same line again."""
    add_people(desk.services, person("c-1"))
    opt_in = {"recipient": "c-1", "channels": {"email": True}, **SAID}
    step = UploadStep(LineUpload("app", "preferences", "nightly"), 0, {1: line_hash(desk.services.secret.newest, opt_in)})
    change = PreferenceChange("c-1", changes({}, {"email": True}, None, None), "branch", "desk 12")
    preferences.record(desk.services, desk.broker.publish, change, step)
    assert send(desk, PREFERENCES, opt_in) == (1, [(1, "repeated")])
    with pytest.raises(LineTaken):
        preferences.record(desk.services, desk.broker.publish, change, step)


def test_a_rejected_line_is_rejected_again(desk: Desk) -> None:
    """Its first answer may have been lost with the connection."""
    bad = person("c-2", language="es")
    for outcome in ("new", "repeated"):
        _, results = send(desk, RECIPIENTS, person("c-1"), bad)
        assert results == [(1, outcome), (2, "rejected")]
    add_people(desk.services, person("c-1"))
    fax = {"recipient": "c-1", "channels": {"fax": True}, **SAID}
    for taken in (0, 1):
        assert send(desk, PREFERENCES, fax) == (taken, [(1, "rejected")])


def test_other_content_under_a_taken_line_is_rejected(desk: Desk) -> None:
    """`repeated` says that the line was applied, so it must be the same line."""
    send(desk, RECIPIENTS, person("c-1"), person("c-2", language="es"), person("c-3"))
    corrected = (person("c-1"), person("c-2"), person("c-9"), person("c-4"))
    results = [(1, "repeated"), (2, "rejected"), (3, "rejected"), (4, "new")]
    assert send(desk, RECIPIENTS, *corrected) == (3, results)
    assert send(desk, RECIPIENTS, *corrected[1:], first=2) == (4, [(2, "rejected"), (3, "rejected"), (4, "repeated")])
    assert desk.call("GET", "/v1/recipients/c-9").status_code == 404
    add_people(desk.services, person("c-1"))
    said = [{"recipient": "c-1", "channels": {channel: False}, **SAID} for channel in ("fax", "email", "sms", "fax")]
    send(desk, PREFERENCES, *said)
    other = [said[2], said[1], said[1], said[1]]
    outcomes = [(1, "rejected"), (2, "repeated"), (3, "rejected"), (4, "rejected")]
    assert send(desk, PREFERENCES, *other) == (4, outcomes)


def test_a_stream_that_leaves_out_lines_is_refused(desk: Desk) -> None:
    send(desk, RECIPIENTS, person("c-1"))
    headers = {"Content_Type": "application/x-ndjson", "Upload_Id": "nightly", "Upload_Line": "3"}
    answer = desk.call("POST", RECIPIENTS, json.dumps(person("c-3")).encode(), **headers)
    assert (answer.status_code, answer.headers["Upload-Taken"]) == (409, "1")
    assert "line 2" in answer.json()["detail"]
    del headers["Upload_Id"]
    assert desk.call("POST", RECIPIENTS, b"", **headers).status_code == 422


def test_two_calls_at_once_apply_each_line_once(desk: Desk) -> None:
    """A client that thinks its connection is lost calls again while the server still works on the first call."""
    rows = [StreamLine(n, person(f"c-{n % 40}", language=("nl", "fr")[n % 2])) for n in range(1, 201)]
    upload, outcomes, errors = LineUpload("crm", "recipients", "nightly"), Counter[str](), []
    lock = threading.Lock()

    def call() -> None:
        try:
            results = put_lines(desk.services, rows, "api:crm", upload)
        except Exception as error:
            errors.append(error)
        else:
            with lock:
                outcomes.update(each.outcome for each in results)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert (outcomes["new"], outcomes["repeated"]) == (40, 400)


def test_the_same_id_of_another_caller_is_another_upload(desk: Desk, tmp_path: Path) -> None:
    send(desk, RECIPIENTS, person("c-1"))
    (tmp_path / "other").mkdir()
    keys, plain = keys_for(tmp_path / "other", crm=ALL_RIGHTS)
    with TestClient(create(desk.services, Broker(), keys)) as client:
        other = Desk(desk.services, desk.broker, desk.clock, client, plain["crm"])
        assert send(other, RECIPIENTS, person("c-1")) == (0, [(1, "unchanged")])
    add_people(desk.services, person("c-1"))
    assert send(desk, PREFERENCES, {"recipient": "c-1", "channels": {"email": False}, **SAID})[0] == 0


def test_positions_of_uploads_are_kept_as_long_as_uploads(desk: Desk) -> None:
    send(desk, RECIPIENTS, person("c-1"))
    desk.clock.now += timedelta(days=8)
    assert sum(each.cleared for each in retention.clear(desk.services) if "line uploads" in each.data.what) == 1
    assert send(desk, RECIPIENTS)[0] == 0


def test_a_byte_order_mark_is_no_part_of_the_first_line(desk: Desk) -> None:
    body = b"\xef\xbb\xbf" + b"".join(json.dumps(person(f"c-{n}")).encode() + b"\n" for n in (1, 2))
    answer = desk.call("POST", RECIPIENTS, body, Content_Type="application/x-ndjson")
    assert [json.loads(line)["outcome"] for line in answer.text.splitlines()] == ["new", "new"]
    pieces = iter([body[:1], body[1:2], body[2:]])
    headers = {"Authorization": f"Bearer {desk.key}", "Content-Type": "application/x-ndjson"}
    answer = desk.client.request("POST", RECIPIENTS, content=pieces, headers=headers)
    assert [json.loads(line)["outcome"] for line in answer.text.splitlines()] == ["unchanged", "unchanged"]
