"""What of the web application needs a key if a setting says so, and what its server's logs hold."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dispatcher.runtime.logs import configure_logs
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import Right, new_key, read_keys
from dispatcher.web.api_reference import FILES
from dispatcher.web.app import create
from tests.support.services import Broker, make_services

ROOT = Path(__file__).parents[2]


@pytest.fixture
def keyed(database: str, tmp_path: Path) -> tuple[str, dict[str, str], Path]:
    made = {name: new_key(name, [name]) for name in ("metrics", "messages")}
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(line for _, line in made.values()))
    return database, {name: key for name, (key, _) in made.items()}, file


def statuses(services: Services, file: Path, paths: dict[str, Right | None], path: str, keys: dict[str, str]) -> list[int]:
    """The statuses of a call without a key, with an unknown one, and with each of the keys."""
    with TestClient(create(services, Broker(), read_keys(file), paths)) as client:
        headers = [{}, *({"Authorization": f"Bearer {key}"} for key in ("dsp_unknown", *keys.values()))]
        return [client.get(path, headers=each).status_code for each in headers]


def test_an_empty_file_of_api_keys_has_no_key(database: str, tmp_path: Path) -> None:
    """So it is in a new installation: the secret has to be there before the first key is made."""
    file = tmp_path / "api_keys"
    file.touch()
    key, _ = new_key("visitor", [Right.METRICS])
    with make_services(database) as services:
        assert statuses(services, file, {"/metrics": Right.METRICS}, "/metrics", {"visitor": key}) == [401, 401, 401]


def test_a_wrong_file_of_api_keys_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "api_keys"
    file.write_text('[[key]]\nname = "visitor"\n')
    environ = {"PATH": os.environ["PATH"], "DISPATCHER_HOME": str(tmp_path), "DISPATCHER_API_KEYS": str(file)}
    start = (sys.executable, "-m", "uvicorn", "--factory", "dispatcher.web:app", "--port", "0")
    ended = subprocess.run(start, env=environ, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    assert (ended.returncode, ended.stderr) == (2, f"{file}: key: unknown field; did you mean keys?\n")


def test_metrics_and_api_description_can_be_kept_for_keys(keyed: tuple[str, dict[str, str], Path]) -> None:
    database, keys, file = keyed
    paths = {"/metrics": Right.METRICS, "/openapi.json": None}
    with make_services(database) as services:
        assert statuses(services, file, paths, "/metrics", keys) == [401, 401, 200, 403]
        assert statuses(services, file, paths, "/openapi.json", keys) == [401, 401, 200, 200]
        assert statuses(services, file, {}, "/metrics", keys) == [200] * 4
        assert statuses(services, file, paths, "/healthz", keys) == [200] * 4


def test_the_api_reference_says_nothing_where_its_document_needs_a_key(keyed: tuple[str, dict[str, str], Path]) -> None:
    database, _, file = keyed
    with make_services(database) as services:
        for paths, needs_key in (({"/openapi.json": None}, "true"), ({}, "false")):
            with TestClient(create(services, Broker(), read_keys(file), paths)) as client:
                page = client.get("/docs")
                assert f'data-needs-key="{needs_key}"' in page.text
                assert "/v1" not in page.text
                policy = page.headers["content-security-policy"]
                assert "unsafe" not in policy
                assert "http" not in policy
                assert [client.get(f"/docs/{name}").status_code for name in (*FILES, "../keys.toml", "x")] == [200] * 4 + [404] * 2
                assert client.get("/docs/swagger-ui-bundle.js").headers["content-type"].startswith("text/javascript")


def test_the_access_log_has_routes_and_ids_but_no_tokens(database: str, caplog: pytest.LogCaptureFixture) -> None:
    planted = "anna@example.org"
    configure_logs()
    logging.getLogger().addHandler(caplog.handler)
    with make_services(database) as services, TestClient(create(services, Broker())) as client:
        client.get(f"/u/{planted}?k={planted}", headers={"Authorization": f"Bearer {planted}", "User-Agent": planted})
        client.get(f"/v1/{planted}")
        client.get(f"/v1/messages/{planted}")
        client.get("/healthz")
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict) and record.msg["event"] == "request"]
    assert [line["route"] for line in lines] == ["/u/{token:path}", "", "/v1/messages/{message_id}"]
    assert all(line["status"] >= 400 and line["request_id"] for line in lines)
    assert planted not in str(lines)


LOGS = """
import logging, sys
from uvicorn.config import Config
Config("x", access_log=True).configure_logging()
from dispatcher.runtime.logs import configure_logs
from dispatcher.web.access_log import format_server_logs
configure_logs(); format_server_logs()
logging.getLogger("uvicorn.error").info("Application startup complete.")
logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', "203.0.113.9:1", "GET", "/v1/campaigns?key=SECRET", "1.1", 200)
"""


def test_logs_of_the_web_server_are_json_like_the_others() -> None:
    done = subprocess.run([sys.executable, "-c", LOGS], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in (done.stderr + done.stdout).splitlines()]
    assert [line["event"] for line in lines] == ["Application startup complete."]
    assert {"level", "logger", "timestamp"} <= lines[0].keys()
