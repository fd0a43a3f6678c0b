"""The arrival log of the sandbox survives a restart and a kill."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from channels.sandbox import SandboxClient, running
from channels.sandbox.state import make_state
from tests.support.sandbox_clients import (
    SENDER,
    make_mail,
    post_mail,
    twilio_client,
)


def test_arrivals_survive_a_restart(tmp_path: Path) -> None:
    with running(state_folder=tmp_path) as before:
        post_mail(before, make_mail())
        sid = twilio_client(before).messages.create(to="+32470000001", from_=SENDER, body="Bonjour").sid or ""
        key, lines = before.sendgrid_webhook_public_key, list(before.log())
    with (tmp_path / "arrivals.jsonl").open("a") as file:
        file.write('{"seq":3,"provider":"twi')  # the process was killed while writing
    with running(state_folder=tmp_path) as after:
        assert list(after.log()) == lines
        assert after.sendgrid_webhook_public_key == key
        assert twilio_client(after).messages(sid).fetch().body == "Bonjour"
        assert [message.sid for message in twilio_client(after).messages.list(to="+32470000001")] == [sid]
        assert twilio_client(after).messages.create(to="+32470000001", from_=SENDER, body="x").sid != sid
        assert after.counts()["sms"] == 2
        assert [line["seq"] for line in after.log()] == [1, 2, 3]


@contextmanager
def sandbox_process(state: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a sandbox from the command line. Yields the process and the URL that it prints when it is ready."""
    command = [sys.executable, "-m", "channels.sandbox", "--port", str(port), "--state", str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, (process.stdout.readline().split() or [""])[-1]
        finally:
            process.kill()


def test_no_answered_message_is_lost_by_a_kill(tmp_path: Path) -> None:
    with sandbox_process(tmp_path) as (process, url):
        assert post_mail(SandboxClient(url), make_mail())[0] == 202
        process.kill()
        process.wait()
        with sandbox_process(tmp_path, port := urlsplit(url).port or 0) as (_, restarted_url):
            assert restarted_url == url
            assert [line["address"] for line in SandboxClient(url).log()] == ["anne@example.com"]
            with sandbox_process(tmp_path / "other", port) as (third, _):
                assert (third.wait(), third.stderr.read() if third.stderr else "") == (
                    2,
                    f"the sandbox cannot start on 127.0.0.1:{port}: Address already in use\n",
                )


def test_the_log_can_be_read_from_any_point_and_cleared(sandbox: SandboxClient) -> None:
    parts = [{"to": [{"email": f"a{n}@example.com"}]} for n in range(1_000)]
    for _ in range(5):
        post_mail(sandbox, make_mail(personalizations=parts))
    twilio_client(sandbox).messages.create(to="+32470000001", from_=SENDER, body="x")
    assert [line["seq"] for line in sandbox.log()] == list(range(1, 5_002))
    assert [line["seq"] for line in sandbox.log(after=4_999)] == [5_000, 5_001]
    assert [line["seq"] for line in sandbox.log(provider="twilio")] == [5_001]
    assert len({line["digest"] for line in sandbox.log(provider="sendgrid")}) == 1
    sandbox.clear_log()
    assert (list(sandbox.log()), sandbox.counts()["total"]) == ([], 0)
    post_mail(sandbox, make_mail())
    assert [line["seq"] for line in sandbox.log()] == [5_002]


def test_only_the_owner_reads_the_list_of_arrivals(tmp_path: Path) -> None:
    folder = tmp_path / "sandbox"
    folder.mkdir(mode=0o755)
    (folder / "arrivals.jsonl").touch(mode=0o644)  # as an earlier version made them
    state = make_state(folder)
    state.log.close()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes == {"sandbox": 0o700, "arrivals.jsonl": 0o600, "event-key.pem": 0o600}
