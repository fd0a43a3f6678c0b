"""Read single variables: each method returns a valid value, or records in a plain sentence what is wrong with it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from channels.registry import Pattern, plugins

OUR_PREFIX = "DISPATCHER_"
SECRETS = "DISPATCHER_SECRETS"


@dataclass(frozen=True, slots=True)
class EnvironmentVariable:
    """The declaration of a variable, from which the configuration page is generated. `values` is empty where any text is valid."""

    name: str
    about: str
    values: str
    default: str


class EnvironmentReader:
    """Reads variables from one mapping, and from its folder of secrets. `faults` collects what is wrong; `known` holds
    every variable that was read, by name."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ, self.faults = with_secret_files(environ)
        self.known: dict[str, EnvironmentVariable] = {}

    def fault(self, sentence: str) -> None:
        """Record what is wrong, once."""
        if sentence not in self.faults:
            self.faults.append(sentence)

    def text(self, name: str, default: str = "", *, about: str = "", values: str = "") -> str:
        """A value without the white space around it; an empty one counts as not set."""
        self._declare(name, about, values, default)
        return self.environ.get(name, "").strip() or default

    def _declare(self, name: str, about: str, values: str = "", default: str = "") -> None:
        """Record the variable; a second call for the same one, without `about`, changes nothing."""
        if about or name not in self.known:
            self.known[name] = EnvironmentVariable(name, about, values, default)

    def secret(self, name: str, *, about: str = "") -> str:
        """A value that is never shown. White space and control characters are refused, because they come from a bad copy."""
        value = self.text(name, about=about)
        if not re.fullmatch(r"[!-~]*", value):
            self.fault(
                f"{name} (not shown) holds white space or characters outside ASCII: it was probably copied with something else."
            )
        return value

    def choice(self, name: str, choices: Iterable[str], default: str = "", *, about: str = "") -> str:
        """One of `choices`, or the default."""
        value = self.text(name, default, about=about, values=", ".join(f"`{choice}`" for choice in choices))
        if value and value not in choices:
            self.fault(f"{name} is {value!r}: it must be one of {', '.join(choices)}.")
        return value

    def seconds(self, name: str, default: float, least: float, most: float, *, about: str = "") -> float:
        """A duration within bounds."""
        self._declare(name, about, f"{least:g} to {most:g}", f"{default:g}")
        value = self.text(name)
        try:
            seconds = float(value) if value else default
        except ValueError:
            seconds = math.nan
        if not least <= seconds <= most:
            self.fault(f"{name} is {value!r}: it must be a number of seconds from {least:g} to {most:g}.")
        return seconds

    def number(self, name: str, default: float, least: float, most: float, *, about: str = "") -> float:
        """A number within bounds."""
        self._declare(name, about, f"{least:,.10g} to {most:,.10g}", f"{default:g}" if default else "")
        value = self.text(name)
        try:
            number = float(value) if value else default
        except ValueError:
            number = math.nan
        if value and not least <= number <= most:
            self.fault(f"{name} is {value!r}: it must be a number from {least:g} to {most:g}.")
        return number

    def matching(self, name: str, pattern: Pattern, *, about: str = "") -> str:
        """A value of a known form, or nothing."""
        value = self.text(name, about=about, values=pattern.right)
        if value and not pattern.regex.fullmatch(value):
            self.fault(f"{name} is {value!r}: it must be {pattern.right}.")
        return value

    def url(self, name: str, default: str, in_the_clear: bool = False, *, about: str = "") -> str:
        """An http(s) URL without a slash at its end; plain http only to this machine, or with `in_the_clear`."""
        value = self.text(name, default, about=about).rstrip("/")
        parts = _split(value)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            self.fault(f"{name} is {_without_user(value)!r}: it must be an address like {default}.")
        elif parts.username is not None:
            self.fault(f"{name} is {_without_user(value)!r}: it must not hold a user or password.")
        elif parts.scheme == "http" and not in_the_clear and not _is_here(parts.hostname):
            self.fault(f"{name} is {value!r}: http would go over the network in the clear; it must begin with https://.")
        return value

    def url_with_password(self, name: str, schemes: tuple[str, ...], *, several: bool = False, about: str = "") -> str:
        """A URL that may hold a password and so is never shown; or nothing. With `several`, semicolons separate more than one."""
        value = self.text(name, about=about, values=", ".join(f"`{scheme}://…`" for scheme in schemes))
        urls = value.split(";") if several else [value]
        if value and not all(_names_place(url, schemes) for url in urls):
            begins = " or ".join(f"{scheme}://" for scheme in schemes)
            self.fault(f"{name} (not shown, it may hold a password) can't be read: it must begin with {begins} and name a place.")
        return value

    def file(self, name: str, *, about: str = "") -> Path | None:
        """A file that can be read, or nothing."""
        value = self.text(name, about=about)
        if not value:
            return None
        path = Path(value).expanduser().absolute()
        try:
            path.open("rb").close()
        except OSError as error:
            self.fault(f"{name} is {value!r}: that file can't be read ({error.strerror}).")
            return None
        return path

    def folder(self, name: str, default: Path, *, shown: str, about: str = "") -> Path:
        """A folder that is there. `shown` stands for the default in the declaration."""
        self._declare(name, about, default=shown)
        value = self.text(name) or str(default)
        path = Path(value).expanduser().absolute()
        if not path.is_dir():
            self.fault(f"{name} is {value!r}: there is no such folder.")
        return path


def with_secret_files(environ: Mapping[str, str]) -> tuple[Mapping[str, str], list[str]]:
    """`environ`, with the variables that are files in the folder of DISPATCHER_SECRETS; and what is wrong there.

    Files, because a container's or service's environment is shown by its tools, and a mounted secret is not. A variable that is set
    in the environment too has that value. Names with other characters than those of variables belong to other programs.
    """
    folder = environ.get(SECRETS, "").strip()
    if not folder:
        return environ, []
    try:
        files = sorted(path for path in Path(folder).expanduser().iterdir() if re.fullmatch(r"[A-Z][A-Z0-9_]*", path.name))
    except OSError as error:
        return environ, [f"{SECRETS} is {folder!r}: the folder cannot be read ({error.strerror})."]
    found, faults = {}, []
    for path in files:
        try:
            found[path.name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            faults.append(f"{SECRETS}: {str(path)!r} cannot be read ({why}).")
    set_here = {name: value for name, value in environ.items() if value.strip() or name not in found}
    return {**found, **set_here}, faults


def spelling_warnings(environ: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """A warning for each variable that looks like one of ours, but is not."""
    prefixes = (OUR_PREFIX, *(prefix for plugin in plugins().values() for prefix in plugin.variable_prefixes))
    for name in sorted(environ):
        if name in known or not name.startswith(prefixes):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if near:
            yield f"{name} is not a variable of this program: did you mean {near[0]}?"
        elif name.startswith(OUR_PREFIX):
            yield f"{name} is not a variable of this program: it has no effect."


def _split(value: str) -> SplitResult | None:
    """The parts of a URL; None for one that cannot be parsed, also because of its port."""
    try:
        parts = urlsplit(value)
        return parts if parts.port != 0 and not re.search(r"\s", value) else None
    except ValueError:
        return None


def _names_place(value: str, schemes: tuple[str, ...]) -> bool:
    """Whether a URL has one of the schemes, and names a server, several with commas between them as PostgreSQL reads it, or a
    path."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    user, at, servers = parts.netloc.rpartition("@")
    each_sound = all(_split(parts._replace(netloc=f"{user}{at}{server}").geturl()) for server in servers.split(","))
    return each_sound and parts.scheme in schemes and bool(parts.netloc or parts.path.strip("/") or parts.query)


def _without_user(value: str) -> str:
    """A URL to show: the part before the last @ may be a password."""
    return f"…@{value.rpartition('@')[2]}" if "@" in value else value


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
