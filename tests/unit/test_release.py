"""`make release`, run on a repository made for the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest

from tools.release import CHANGELOG, PACKAGE, ROOT, ReleaseError, release, unreleased_entries

TODAY = date(2026, 12, 1)
GIT = shutil.which("git") or "git"
FIRST_CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A first thing.\n"


def git(folder: Path, *arguments: str) -> str:
    """Run git. Returns its output."""
    return subprocess.run([GIT, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project with version 0.1.0, not released yet, and a remote repository."""
    for name in [
        name for name in os.environ if name.startswith("GIT_")
    ]:  # set in a git hook: they would point to the real repository
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    remote, folder = tmp_path / "remote", tmp_path / "project"
    for path in (remote, folder / "dispatcher"):
        path.mkdir(parents=True)
    git(remote, "init", "--quiet", "--bare")
    git(folder, "init", "--quiet", "--initial-branch=main")
    for name, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        git(folder, "config", name, value)
    git(folder, "remote", "add", "origin", str(remote))
    (folder / "dispatcher" / "__init__.py").write_text('"""A package."""\n\n__version__ = "0.1.0"\n\nOTHER = 1\n')
    commit_changelog(folder, FIRST_CHANGELOG)
    return folder


def commit_changelog(folder: Path, text: str) -> None:
    """Write the changelog and commit everything."""
    (folder / "CHANGELOG.md").write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Change")


def add_entry(folder: Path) -> None:
    """Commit one more entry under [Unreleased]."""
    before = (folder / "CHANGELOG.md").read_text()
    commit_changelog(folder, before.replace("## [Unreleased]\n", "## [Unreleased]\n\n- Another thing.\n", 1))


def reason_against(folder: Path, version: str) -> str:
    """The reason why this release is refused. A refusal must not change commits, tags or files."""
    before = git(folder, "rev-parse", "HEAD"), git(folder, "tag"), git(folder, "status", "--porcelain")
    with pytest.raises(ReleaseError) as raised:
        release(folder, version, TODAY)
    assert (git(folder, "rev-parse", "HEAD"), git(folder, "tag"), git(folder, "status", "--porcelain")) == before
    return str(raised.value)


def test_a_release_sets_version_and_changelog_commits_and_tags(project: Path) -> None:
    assert release(project, "0.2.0", TODAY) == "v0.2.0"
    package = (project / "dispatcher" / "__init__.py").read_text()
    assert package == '"""A package."""\n\n__version__ = "0.2.0"\n\nOTHER = 1\n'
    changelog = (project / "CHANGELOG.md").read_text()
    assert changelog == "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n### Added\n\n- A first thing.\n"
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "log", "-1", "--format=%s", "v0.2.0") == "Release 0.2.0"
    assert git(project, "rev-parse", "v0.2.0^{commit}") == git(project, "rev-parse", "main")
    assert git(project, "cat-file", "-t", "v0.2.0") == "tag"


def test_a_release_pushes_nothing(project: Path) -> None:
    release(project, "0.2.0", TODAY)
    assert git(project, "ls-remote", "origin") == ""


def test_the_first_release_may_keep_the_package_s_version(project: Path) -> None:
    release(project, "0.1.0", TODAY)
    assert git(project, "tag") == "v0.1.0"
    add_entry(project)
    assert reason_against(project, "0.1.0") == "The version 0.1.0 is not greater than 0.1.0."


def test_the_next_release_keeps_the_earlier_sections(project: Path) -> None:
    release(project, "0.9.0", TODAY)
    add_entry(project)
    release(project, "0.10.0", date(2027, 1, 2))
    headings = [line for line in (project / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings == ["## [Unreleased]", "## [0.10.0] - 2027-01-02", "## [0.9.0] - 2026-12-01"]


@pytest.mark.parametrize("version", ["0.0.9", "0.0.99"])
def test_a_smaller_version_is_refused(project: Path, version: str) -> None:
    assert reason_against(project, version) == f"The version {version} is not greater than 0.1.0."


@pytest.mark.parametrize("version", ["", "1", "1.0", "v1.0.0", "1.0.0rc1", "01.0.0", "1.0.0\n", "1.0.0.0", "--help"])
def test_what_is_no_version_is_refused(project: Path, version: str) -> None:
    assert "is not a version such as 1.2.0" in reason_against(project, version)


def test_a_tag_that_exists_is_not_made_again(project: Path) -> None:
    git(project, "tag", "v0.2.0")
    assert reason_against(project, "0.2.0") == "The tag v0.2.0 exists already."


@pytest.mark.parametrize("name", ["dispatcher/__init__.py", "not_added.txt"])
def test_a_tree_with_changes_is_refused(project: Path, name: str) -> None:
    with (project / name).open("a") as file:
        file.write("# a change\n")
    assert "not committed" in reason_against(project, "0.2.0")


def test_another_branch_is_refused(project: Path) -> None:
    git(project, "switch", "--quiet", "--create", "feature")
    assert "The branch is feature" in reason_against(project, "0.2.0")
    git(project, "switch", "--quiet", "--detach")
    assert "detached HEAD" in reason_against(project, "0.2.0")


@pytest.mark.parametrize(
    "changelog",
    [
        "# Changelog\n\n## [Unreleased]\n",
        "# Changelog\n\n## [Unreleased]\n\n### Added\n\n## [0.0.1] - 2026-01-01\n\n- Old.\n",
        "# Changelog\n\n## [0.0.1] - 2026-01-01\n\n- Old.\n",
    ],
    ids=["nothing", "a heading only", "no section"],
)
def test_a_release_without_changes_is_refused(project: Path, changelog: str) -> None:
    commit_changelog(project, changelog)
    assert reason_against(project, "0.2.0") == "CHANGELOG.md has no entry under [Unreleased]."


def test_all_reasons_are_reported_at_once(project: Path) -> None:
    git(project, "switch", "--quiet", "--create", "feature")
    (project / "not_added.txt").touch()
    assert len(reason_against(project, "0.0.1").splitlines()) == 3


def test_a_commit_that_fails_leaves_the_files_as_they_were(project: Path) -> None:
    hook = project / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    hook.chmod(0o755)
    assert "git commit: no" in reason_against(project, "0.2.0")


def test_this_project_itself_can_be_released(project: Path) -> None:
    for name in (PACKAGE, CHANGELOG):
        shutil.copy(ROOT / name, project / name)
    add_entry(project)
    assert release(project, "999.0.0", TODAY) == "v999.0.0"
    assert '__version__ = "999.0.0"\n' in (project / PACKAGE).read_text()


def test_unreleased_entries_end_at_the_next_version() -> None:
    changelog = "## [Unreleased]\n\n### Added\n\n- One.\n  Its second line.\n* Two.\n\n## [1.0.0] - 2026-01-01\n\n- Old.\n"
    assert unreleased_entries(changelog) == ["- One.", "* Two."]
