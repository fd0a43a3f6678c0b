"""The command line acts as who is signed in: users, login, service accounts, and the account of the operating system."""

from __future__ import annotations

import getpass
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyotp
import pytest

from dispatcher.cli.command_groups import command_line
from dispatcher.cli.errors import run
from dispatcher.cli.identity import session_file
from dispatcher.runtime import bootstrap
from dispatcher.web.api_keys import new_key
from tests.support.services import TEMPLATES

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

    def __call__(self, *arguments: str, lines: str = "") -> CommandAnswer:
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

    def call(*arguments: str, lines: str) -> CommandAnswer:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        code = run(command_line(arguments[0]), arguments)
        said = capsys.readouterr()
        return CommandAnswer(code, said.out, said.err)

    yield Shell(call)
    for cache in CACHES:
        cache.cache_clear()


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
