"""Uploaded audiences: complete or not there, resumable, limited, private; a campaign loads one as it loads a file."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from dispatcher.campaigns import audience_uploads, overview, public_tasks, submission
from dispatcher.campaigns.audience_uploads import Upload, UploadConflict, UploadRange
from dispatcher.campaigns.public_tasks import TaskCall
from dispatcher.campaigns.submission import SubmitStatus
from dispatcher.domain.refused_job import CAMPAIGN_TASK
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.campaigns import loads
from dispatcher.ledger.connection import lend
from dispatcher.maintenance import retention
from dispatcher.runtime.services import DeliveryLimits, Services, UploadLimits
from dispatcher.web.api_keys import Right, new_key, read_keys
from dispatcher.web.app import create
from tests.support.services import Broker, Clock, add_people, make_services, person, states

LOAN = {"offer_url": "https://www.bank.example/loan", "project": "a bike", "amount": 5_000}
NDJSON = "application/x-ndjson"


@dataclass
class Caller:
    """The API for one caller, with uploads in a folder of their own."""

    services: Services
    broker: Broker
    client: TestClient
    key: str = field(repr=False)

    def put(self, upload_id: str, content: bytes | Iterator[bytes], media_type: str = NDJSON, **headers: str) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.call("PUT", f"/v1/audiences/{upload_id}", content, **{"Content-Type": media_type, **named})

    def call(self, method: str, path: str, content: Any = None, **headers: str) -> Response:
        body = json.dumps(content).encode() if isinstance(content, dict) else content
        return self.client.request(method, path, content=body, headers={"Authorization": f"Bearer {self.key}", **headers})

    def submit(self, upload_id: str, campaign_id: str = "spring", query: str = "") -> Response:
        form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": {"upload": upload_id}}
        return self.call("POST", f"/v1/campaigns{query}", form)


@pytest.fixture
def caller(database: str, tmp_path: Path) -> Iterator[Caller]:
    key, line = new_key("app", Right)
    (tmp_path / "keys.toml").write_text(line)
    broker = Broker()
    with make_services(database, Clock()) as made:
        services = replace(made, audiences=tmp_path / "audiences", upload_limits=UploadLimits(20_000_000, 50))
        with TestClient(create(services, broker, read_keys(tmp_path / "keys.toml"))) as client:
            yield Caller(services, broker, client, key)


def audience(rows: int) -> bytes:
    return b"".join(json.dumps({"recipient": f"c-{number}", "data": LOAN}).encode() + b"\n" for number in range(rows))


def problem(answer: Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    return answer.status_code, "; ".join(f"{each['field']}: {each['message']}" for each in body.get("errors") or []) or body[
        "detail"
    ]


def test_a_campaign_sends_to_an_uploaded_audience(caller: Caller) -> None:
    add_people(caller.services, *(person(f"c-{number}", number) for number in range(3)))
    answer = caller.put("list-1", audience(3))
    assert answer.status_code == 201
    assert answer.json()["sha256"] == hashlib.sha256(audience(3)).hexdigest()
    assert caller.submit("list-1", query="?dry_run=true").json()["states"] == {"sendable": 3}
    accepted = caller.submit("list-1")
    assert (accepted.status_code, accepted.json()["audience"]) == (201, 3)
    assert caller.submit("list-1").json() == accepted.json()
    caller.broker.work(caller.services)
    assert states(caller.services) == {"accepted": 3}


@pytest.mark.parametrize(
    ("upload_id", "media_type", "encoding", "pack"),
    [
        ("a", NDJSON, "gzip", True),
        ("b.csv.gz", "application/x-www-form-urlencoded", "identity", True),
        ("c", "text/csv; charset=utf-8", "identity", False),
        ("d.jsonl", "application/octet-stream", "gzip", True),
    ],
)
def test_an_upload_may_be_csv_or_ndjson_and_gzip(
    caller: Caller, upload_id: str, media_type: str, encoding: str, pack: bool
) -> None:
    csv = b"recipient,data.offer_url,data.project,data.amount\nc-1,https://www.bank.example/loan,a bike,5000\n"
    plain = csv if upload_id in ("b.csv.gz", "c") else audience(1)
    sent = gzip.compress(plain[:40]) + gzip.compress(plain[40:]) if pack else plain  # gzip files can be joined
    answer = caller.put(upload_id, sent, media_type, Content_Encoding=encoding)
    assert (answer.status_code, answer.json()["size"]) == (201, len(plain))
    assert answer.json()["sha256"] == hashlib.sha256(sent).hexdigest()
    assert caller.submit(upload_id).json()["audience"] == 1


def test_an_interrupted_upload_goes_on_and_is_no_campaign_before(caller: Caller) -> None:
    whole = audience(50)
    first, total = len(whole) // 3, len(whole)
    answer = caller.put("list", whole[:first], Content_Range=f"bytes 0-{first - 1}/{total}")
    assert (answer.status_code, answer.json()["received"], answer.json()["complete"]) == (202, first, False)
    assert problem(caller.submit("list")) == (
        422,
        f"audience.upload: upload 'list' is not complete: {first} of {total} bytes have arrived",
    )
    assert caller.call("GET", "/v1/campaigns/spring").status_code == 404
    gap = caller.put("list", whole[first + 1 :], Content_Range=f"bytes {first + 1}-{total - 1}/{total}")
    assert problem(gap) == (409, f"the next byte is {first}")
    received = caller.call("GET", "/v1/audiences/list").json()["received"]
    answer = caller.put("list", whole[received:], Content_Range=f"bytes {received}-{total - 1}/{total}")
    assert (answer.status_code, answer.json()["sha256"]) == (201, hashlib.sha256(whole).hexdigest())
    assert caller.submit("list").json()["audience"] == 50


def test_a_call_that_breaks_off_keeps_what_arrived(caller: Caller) -> None:
    whole = audience(50)
    upload = Upload("list", ".jsonl", is_gzip=False)
    writer = audience_uploads.open_upload(caller.services, upload, UploadRange(0, len(whole)))
    writer.write(whole[:1_000])
    with pytest.raises(UploadConflict, match="another call is writing it"):
        audience_uploads.open_upload(caller.services, upload, UploadRange(0, len(whole)))
    writer.close()  # as where the client has gone
    assert caller.call("GET", "/v1/audiences/list").json()["received"] == 1_000
    answer = caller.put("list", whole[1_000:], Content_Range=f"bytes 1000-{len(whole) - 1}/{len(whole)}")
    assert (answer.status_code, answer.json()["sha256"]) == (201, hashlib.sha256(whole).hexdigest())


def test_a_refused_part_changes_nothing(caller: Caller) -> None:
    whole = audience(50)
    total = len(whole)
    caller.put("list", whole[:100], Content_Range=f"bytes 0-99/{total}")
    assert caller.put("list", whole[:10], Content_Range=f"bytes 0-4/{total}").status_code == 422
    more = caller.put("list", iter([whole[100:150], whole[150:200]]), Content_Range=f"bytes 100-150/{total}")  # without a length
    assert problem(more)[0] == 409
    assert caller.call("GET", "/v1/audiences/list").json()["received"] == 100
    assert caller.put("list", whole[100:], Content_Range=f"bytes 100-{total - 1}/{total}").status_code == 201


def test_a_complete_upload_does_not_change(caller: Caller) -> None:
    assert caller.put("list", audience(2)).status_code == 201
    assert caller.put("list", audience(2)).status_code == 200
    assert problem(caller.put("list", audience(3)))[0] == 409
    assert problem(caller.put("list", audience(2)[:5], Content_Range="bytes 0-4/9"))[0] == 409
    assert caller.submit("list").json()["audience"] == 2


def test_what_is_too_large_or_damaged_is_refused_and_gone(caller: Caller) -> None:
    bomb = gzip.compress(bytes(19_000_000))
    packed = gzip.compress(audience(100))
    for content, headers, status, why in (
        (b"x" * 20_000_001, {}, 413, "20,000,000 bytes at most"),
        (b"x", {"Content_Range": "bytes 0-0/20000001"}, 413, "20,000,000 bytes at most"),
        (iter([b"x" * 10_000_000] * 3), {}, 413, "20,000,000 bytes at most"),
        (bomb, {"Content_Encoding": "gzip"}, 413, "unpacks to more than"),
        (packed[:-20], {"Content_Encoding": "gzip"}, 422, "ends within its gzip data"),
        (b"no gzip", {"Content_Encoding": "gzip"}, 422, "is not gzip"),
        (b"x" * 9, {"Content_Range": "bytes 0-4/9"}, 422, "says 5 bytes, the body has 9"),
        (b"x", {"Content_Range": "bytes 5-4/9"}, 422, "FIRST-LAST/TOTAL"),
        (b"x", {"Content_Encoding": "br"}, 422, "pattern"),
    ):
        answer = caller.put("list", content, **headers)
        assert answer.status_code == status
        assert why in problem(answer)[1]
        assert caller.submit("list").status_code == 422
    assert problem(caller.put("list", b"x", "application/pdf"))[0] == 415
    folder = caller.services.audiences / "uploads" / "list"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000


def test_only_the_account_of_the_program_can_read_an_upload(caller: Caller) -> None:
    old = os.umask(0)
    try:
        caller.put("list", gzip.compress(audience(2)), Content_Encoding="gzip")
        caller.put("part", b"x", Content_Range="bytes 0-0/9")
    finally:
        os.umask(old)
    uploads = caller.services.audiences / "uploads"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in uploads.rglob("*")}
    assert modes == {"list": 0o700, "part": 0o600, "audience.jsonl": 0o600, "upload.json": 0o600}


def test_a_large_upload_is_loaded_in_parts_by_workers(caller: Caller) -> None:
    few = replace(caller.services, limits=DeliveryLimits(part_rows=10), monotonic_clock=count(0.0, 10.0).__next__)
    caller.client.app.state.services = few  # type: ignore[attr-defined]
    caller.put("list", audience(95))
    answer = caller.submit("list")
    assert (answer.status_code, answer.json()["loading"]) == (202, True)
    assert len(caller.broker.loads) == 1
    assert problem(caller.call("DELETE", "/v1/audiences/list")) == (409, "campaign spring is loading from it")
    while submission.load_some(few, caller.broker.loads[0], seconds_max=0).status is SubmitStatus.LOADING:
        pass
    assert caller.submit("list").status_code == 201
    assert caller.call("GET", "/v1/campaigns/spring").json()["audience"] == 95
    with lend(few.pool) as connection:
        load = loads.of_campaign(connection, "spring")
    assert load is not None
    assert load.ended == "complete"
    assert caller.call("DELETE", "/v1/audiences/list").status_code == 204
    assert caller.broker.dues


def test_a_celery_job_may_name_an_upload(caller: Caller) -> None:
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": {"upload": "list"}}
    call = TaskCall(CAMPAIGN_TASK, (form,), {})
    with pytest.raises(BadInput, match=r"audience\.upload: there is no"):
        public_tasks.accept_campaign(caller.services, call, 60, is_redelivered=False)
    caller.put("list", audience(4))
    _, result = public_tasks.accept_campaign(caller.services, call, 60, is_redelivered=False)
    assert (result.status, result.audience) == (SubmitStatus.NEW, 4)


@pytest.mark.parametrize(
    "named", [{"upload": "../keys"}, {"upload": "x", "more": 1}, {"upload": 5}, {}, "uploads/list/audience.jsonl"]
)
def test_only_an_upload_can_be_named_by_api(caller: Caller, named: object) -> None:
    caller.put("list", audience(1))
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": named}
    assert caller.call("POST", "/v1/campaigns", form).status_code == 422


def test_a_campaign_names_only_uploads_of_its_own_key(caller: Caller) -> None:
    add_people(caller.services, person("c-0", 0))
    caller.put("list", audience(1))
    other, line = new_key("other", Right)
    with TestClient(create(caller.services, Broker(), read_keys(write_key(caller, line)))) as client:
        stranger = Caller(caller.services, Broker(), client, other)
        assert problem(stranger.submit("list")) == (403, "upload 'list' belongs to app, who alone can use it")
        assert problem(stranger.submit("list", query="?dry_run=true"))[0] == 403
        assert overview.find(caller.services, "spring") is None
        stranger.put("mine", audience(1))
        assert stranger.submit("mine").status_code == 201
    assert caller.submit("list", "summer").status_code == 201


def write_key(caller: Caller, line: str) -> Path:
    path = caller.services.audiences.parent / "other-keys.toml"
    path.write_text(line)
    return path


def test_an_upload_of_the_command_line_is_open_to_every_key(caller: Caller) -> None:
    writer = audience_uploads.open_upload(caller.services, Upload("list", ".jsonl", is_gzip=False), UploadRange())
    writer.write(audience(1))
    writer.finish()
    writer.close()
    assert caller.submit("list").status_code == 201


def test_retention_deletes_uploads_that_nobody_touched(caller: Caller) -> None:
    services = caller.services
    caller.put("old", audience(1))
    caller.put("half", b"x", Content_Range="bytes 0-0/9")
    week = services.policy.retention.uploads
    assert str(week) == "7 days"
    long_ago = (week.before(services.clock()) - timedelta(minutes=1)).timestamp()
    for path in (services.audiences / "uploads").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    caller.put("new", audience(1))
    new = services.audiences / "uploads" / "new"
    for path in (new, *new.iterdir()):
        os.utime(path, (services.clock().timestamp(),) * 2)
    due = {each.data.what: each.overdue for each in retention.backlogs(services)}
    cleared = {each.data.what: each.cleared for each in retention.clear(services)}
    assert (due["uploaded audiences"], cleared["uploaded audiences"]) == (2, 2)
    assert [each["id"] for each in caller.call("GET", "/v1/audiences").json()["audiences"]] == ["new"]


@pytest.mark.parametrize("upload_id", ["a b", "-list", "x" * 101])
def test_a_bad_upload_id_is_named(caller: Caller, upload_id: str) -> None:
    status, text = problem(caller.put(upload_id.replace(" ", "%20"), audience(1)))
    assert (status, text.partition(":")[0]) == (422, "upload_id")
    assert problem(caller.submit(upload_id))[1].startswith("audience.upload: ")


def test_an_empty_audience_is_refused_and_the_dry_run_warns(caller: Caller) -> None:
    caller.put("list", b"recipient,data.project\n", "text/csv")
    assert "has no rows" in caller.submit("list", query="?dry_run=true").json()["needs"][0]
    status, text = problem(caller.submit("list"))
    assert (status, text) == (422, "audience: has no rows: the campaign would reach nobody")
    assert overview.find(caller.services, "spring") is None
