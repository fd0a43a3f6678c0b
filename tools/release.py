"""Release a version: `make release VERSION=1.2.0`.

Writes the version into the package and the date into the changelog, commits both, and tags the commit. Pushes nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
BRANCH = "main"
PACKAGE = Path("dispatcher/__init__.py")
CHANGELOG = Path("CHANGELOG.md")
UNRELEASED = "## [Unreleased]\n"

_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_ASSIGNMENT = re.compile(r'^__version__ = "([^"]*)"$', re.MULTILINE)


class ReleaseError(Exception):
    """Why there is no release: one sentence per reason, or what git says."""


def release(root: Path, version: str, today: date) -> str:
    """Release the project in `root`, and return the name of the tag. Raises `ReleaseError`; then no file is changed."""
    package = (root / PACKAGE).read_text(encoding="utf-8")
    changelog = (root / CHANGELOG).read_text(encoding="utf-8")
    if reasons := list(_reasons_against(root, version, package, changelog)):
        raise ReleaseError("\n".join(reasons))
    (root / PACKAGE).write_text(_ASSIGNMENT.sub(f'__version__ = "{version}"', package), encoding="utf-8")
    heading = f"{UNRELEASED}\n## [{version}] - {today.isoformat()}\n"
    (root / CHANGELOG).write_text(changelog.replace(UNRELEASED, heading, 1), encoding="utf-8")
    try:
        _git(root, "commit", "--quiet", "--message", f"Release {version}", "--", str(PACKAGE), str(CHANGELOG))
    except ReleaseError:  # a commit hook refused, or git does not know who commits
        _git(root, "checkout", "--quiet", "HEAD", "--", str(PACKAGE), str(CHANGELOG))
        raise
    _git(root, "tag", "--annotate", "--message", f"Release {version}", f"v{version}")
    return f"v{version}"


def _reasons_against(root: Path, version: str, package: str, changelog: str) -> Iterator[str]:
    branch = _git(root, "branch", "--show-current")
    if branch != BRANCH:
        yield f"The branch is {branch or 'none (detached HEAD)'}; a release is made on {BRANCH}."
    if _git(root, "status", "--porcelain"):
        yield "There are changes that are not committed (see git status)."
    if not unreleased_entries(changelog):
        yield f"{CHANGELOG} has no entry under [Unreleased]."
    current = _ASSIGNMENT.search(package)
    if current is None:
        yield f'{PACKAGE} has no line __version__ = "…".'
    elif not _VERSION.fullmatch(version):
        yield f"{version!r} is not a version such as 1.2.0."
    elif not _is_next(version, current[1], changelog):
        yield f"The version {version} is not greater than {current[1]}."
    elif _git(root, "tag", "--list", f"v{version}"):
        yield f"The tag v{version} exists already."


def unreleased_entries(changelog: str) -> list[str]:
    """The entries of the section [Unreleased], each by its first line."""
    _, _, rest = changelog.partition(UNRELEASED)
    section = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return [line for line in section.splitlines() if line.startswith(("- ", "* "))]


def _is_next(version: str, current: str, changelog: str) -> bool:
    """Whether a version comes after the current one, or is the current one and was never released: so the first release is."""
    return _parts(version) > _parts(current) or (version == current and f"## [{version}]" not in changelog)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"git {arguments[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def main() -> None:
    """The command line."""
    version = sys.argv[1] if len(sys.argv) == 2 else ""
    try:
        tag = release(ROOT, version, datetime.now(UTC).date())
    except ReleaseError as error:
        sys.exit(str(error))
    print(f"Made the commit and the tag {tag}. To publish them: git push --atomic origin {BRANCH} {tag}")


if __name__ == "__main__":
    main()
