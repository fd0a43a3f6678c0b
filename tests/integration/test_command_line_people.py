"""The command line acts as who is signed in: users, login, service accounts, and the account of the operating system."""

from __future__ import annotations

import getpass
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import pyotp
import pytest

from dispatcher.cli.command_groups import command_line
from dispatcher.cli.errors import run
from dispatcher.cli.identity import session_file
from dispatcher.ledger.connection import lend
from dispatcher.policy import shipped
from dispatcher.runtime import bootstrap
from dispatcher.web.api_keys import new_key
from tests.support.services import TEMPLATES, add_people, person

CACHES = (bootstrap.settings, bootstrap.joined_engines, bootstrap.migrate_once)
OWN = "a long word of my own"


@dataclass(frozen=True)
class CommandAnswer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Runs commands in this process; `lines` is their standard input."""

    def __init__(self, call: Callable[..., CommandAnswer]) -> None:
        self._call = call

    def __call__(self, *arguments: str, lines: str | io.StringIO = "") -> CommandAnswer:
        return self._call(*arguments, lines=lines)

    def login(self, name: str, *lines: str) -> int:
        return self("login", name, lines="".join(f"{line}\n" for line in lines)).code

    def add(self, name: str, *roles: str) -> None:
        """Add a person who has chosen a password."""
        words = [word for role in roles for word in ("--role", role)]
        given = self("users", "add", name, "--name", name.title(), *words, "--json").json["password"]
        assert self.login(name, given, "", OWN) == 0

    def me(self) -> str:
        identity: str = self("whoami", "--json").json["id"]
        return identity


@pytest.fixture
def shell(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    environ = {
        "DISPATCHER_HOME": tmp_path,
        "XDG_CONFIG_HOME": tmp_path / "config",
        "DISPATCHER_DATABASE_URL": database,
        "DISPATCHER_BROKER_URL": "redis://127.0.0.1:1/0",
        "DISPATCHER_SECRET_KEY": "a-secret-of-the-tests-that-is-long-enough",
        "DISPATCHER_TEMPLATES": TEMPLATES,
        **{f"DISPATCHER_PROVIDER_{channel}": "outbox" for channel in ("EMAIL", "SMS", "WHATSAPP", "PUSH")},
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, str(value))
    for cache in CACHES:
        cache.cache_clear()

    def call(*arguments: str, lines: str | io.StringIO) -> CommandAnswer:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines) if isinstance(lines, str) else lines)
        code = run(command_line(arguments[0]), arguments)
        said = capsys.readouterr()
        return CommandAnswer(code, said.out, said.err)

    yield Shell(call)
    for cache in CACHES:
        cache.cache_clear()


@pytest.fixture
def quick(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """As `shell`, with one template: each command compiles all, which takes seconds."""
    for name in ("_shared", "loan_offer"):
        copytree(TEMPLATES / name, tmp_path / "templates" / name)
    monkeypatch.setenv("DISPATCHER_TEMPLATES", str(tmp_path / "templates"))
    return shell


def test_the_first_person_ends_what_the_shell_may_do_alone(shell: Shell) -> None:
    assert shell.me() == f"os:{getpass.getuser()}"
    assert shell("users", "add", "jana", "--name", "Jana", "--role", "marketer").code == 2  # nobody could add others
    given = shell("users", "add", "jana", "--name", "Jana Maes", "--role", "admin", "--role", "approver", "--json").json["password"]
    refused = shell("templates", "approve", "loan_offer")
    assert (refused.code, "dispatcher login" in refused.err) == (1, True)
    assert shell("users", "list").code == 1
    assert shell("campaign", "list").code == 0  # reading goes on
    assert [shell.login("jana", *lines) for lines in (("x", ""), (given, "", "short"), (given, "", OWN))] == [1, 2, 0]
    file = session_file(bootstrap.services().secret)
    assert file.stat().st_mode & 0o777 == 0o600
    assert shell.me() == "user:jana"
    assert "approved by user:jana" in shell("templates", "approve", "loan_offer").out
    file.chmod(0o644)
    assert "can be read by others" in shell("whoami").err
    file.chmod(0o600)
    copy = file.read_text()
    assert shell("logout").code == 0
    file.write_text(copy)
    file.chmod(0o600)
    assert shell("whoami").code == 1


def test_a_role_limits_what_a_person_may_do(shell: Shell) -> None:
    shell.add("ada", "admin")
    shell.add("mark", "marketer")
    shell.add("apo", "approver") if shell.login("ada", OWN, "") == 0 else None
    refused = shell("users", "add", "eve", "--name", "Eve", "--role", "admin")
    assert (refused.code, "lacks the right 'users'; these roles have it: admin" in refused.err) == (1, True)
    assert shell.login("mark", OWN, "") == 0
    assert shell("templates", "approve", "loan_offer").code == 1
    assert shell.login("ada", OWN, "") == 0
    assert shell("users", "roles", "ada", "--role", "marketer").code == 1
    assert shell("users", "roles", "mark", "--role", "marketer", "--entity", "mars").code == 2
    assert shell("users", "roles", "mark", "--role", "approver", "--entity", "kbc-bank", "--json").json["entities"] == ["kbc-bank"]
    made = shell("users", "totp", "mark", "--json").json
    assert shell("users", "disable", "apo", "--json").json["disabled_at"]
    assert [shell.login("apo", OWN, ""), shell.login("mark", OWN, "")] == [1, 1]
    assert shell.login("mark", OWN, pyotp.TOTP(made["secret"]).now()) == 0
    assert shell("templates", "approve", "loan_offer").code == 0


def test_a_service_account_acts_by_its_key(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.add("ada", "admin")
    key, lines = new_key("nightly", ["templates"])
    (tmp_path / "keys.toml").write_text(lines)
    monkeypatch.setenv("DISPATCHER_API_KEYS", str(tmp_path / "keys.toml"))
    monkeypatch.setenv("DISPATCHER_API_KEY", key)
    bootstrap.settings.cache_clear()
    assert shell.me() == "api:nightly"
    assert "approved by api:nightly" in shell("templates", "approve", "loan_offer").out
    refused = shell("recipients", "erase", "c-1")
    assert (refused.code, "nightly lacks the right 'erase'" in refused.err) == (1, True)
    monkeypatch.setenv("DISPATCHER_API_KEY", "dsp_unknown")
    bootstrap.settings.cache_clear()
    assert shell("templates", "approve", "loan_offer").code == 1


@pytest.mark.parametrize("words", [("campaign", "release", "x", "--by", "Bart"), ("templates", "approve", "x", "--actor=Bart")])
def test_nobody_names_themselves(shell: Shell, words: tuple[str, ...]) -> None:
    refused = shell(*words)
    assert refused.code == 2
    assert "is gone: a command acts as who is signed in; sign in with `dispatcher login`" in refused.err


class App(io.StringIO):
    """Lines for standard input, and then the code of the secret that was shown meanwhile."""

    def __init__(self, lines: str, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(lines)
        self._capsys = capsys

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """The next line, or the code."""
        secret = re.search(r"secret=(\w+)", self._capsys.readouterr().err)
        return pyotp.TOTP(secret[1]).now() + "\n" if secret else super().readline(size)


def test_the_command_line_sets_up_a_second_factor_where_needed(
    quick: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(shipped().replace("second_factor = []", 'second_factor = ["admin"]'))
    monkeypatch.setenv("DISPATCHER_POLICY", str(policy))
    given = quick("users", "add", "ida", "--name", "Ida", "--role", "admin", "--json").json["password"]
    assert quick.login("ida", given, "", OWN, "000000") == 2
    assert "needs a second factor" in quick("users", "list").err
    answer = quick("login", "ida", lines=App(f"{OWN}\n\n", capsys))
    assert (answer.code, answer.err.count("-")) >= (0, 8)
    assert quick("users", "list").code == 0


def test_managing_people_needs_a_sign_in_of_lately(quick: Shell) -> None:
    quick.add("ida", "admin")
    with lend(bootstrap.services().pool) as connection:
        connection.execute("UPDATE sessions SET confirmed_at = now() - interval '11 minutes'")
    refused = quick("users", "add", "otto", "--name", "Otto", "--role", "admin")
    assert (refused.code, "a sign-in of the last 10 minutes" in refused.err) == (1, True)
    assert quick("users", "list").code == 0
    assert quick.login("ida", OWN, "") == 0
    assert quick("users", "add", "otto", "--name", "Otto", "--role", "admin").code == 0


def test_erasure_by_command_needs_two_people(quick: Shell) -> None:
    quick.add("ida", "admin", "compliance")
    quick.add("otto", "admin", "compliance")
    add_people(bootstrap.services(on_faults=ignore), person("c-1"))
    waiting = {"id": "c-1", "erased": False, "waiting": True}
    assert [quick("recipients", "erase", "c-1", "--json").json for _ in range(2)] == [waiting] * 2
    assert [quick("recipients", "erase", "c-1", "--reject").code for _ in range(2)] == [0, 1]
    assert quick("recipients", "erase", "c-1", "--reason", "letter of 3 May", "--json").json == waiting
    quick.login("ida", OWN, "")
    assert quick("recipients", "erase", "c-1", "--json").json == {"id": "c-1", "erased": True, "waiting": False}
    assert quick("recipients", "erase", "nobody").code == 1
    rows = quick("audit", "list", "--recipient", "c-1", "--json").json
    assert [(row["principal_id"], row["action"], row["outcome"]) for row in reversed(rows)][-4:] == [
        ("user:otto", "request", "begun"),
        ("user:otto", "request", "done"),
        ("user:ida", "erase", "begun"),
        ("user:ida", "erase", "done"),
    ]


def test_a_person_of_one_entity_sees_no_other_by_command(quick: Shell) -> None:
    quick.add("ida", "admin", "compliance", "operator", "marketer")
    add_people(bootstrap.services(on_faults=ignore), person("zz-anna"), person("own", 2, entities=["cbc-banque"]))
    given = quick("users", "add", "cleo", "--name", "Cleo", "--role", "compliance", "--entity", "cbc-banque", "--json").json
    assert quick.login("cleo", given["password"], "", OWN) == 0
    assert quick("recipients", "show", "own").code == 0
    for command in (("recipients", "show"), ("recipients", "export"), ("recipients", "erase"), ("preferences", "show")):
        known, unknown = (quick(*command, each) for each in ("zz-anna", "qq-anna"))
        assert (known.code, known.err.replace("zz-", "qq-")) == (1, unknown.err), command
    for refused in (("suppressions", "list"), ("webhooks", "list"), ("users", "list")):
        assert "limited to some entities" in quick(*refused).err, refused


def ignore(_: object) -> None:
    """For templates that are left out."""
