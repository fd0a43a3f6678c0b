"""Whether a process answers at a URL, with the standard library only: a health check runs every few seconds, and the imports of the
other commands cost a second of a processor."""

from __future__ import annotations

import sys
from http.client import HTTPException
from urllib.request import urlopen

SECONDS_MAX = 5.0


def fault_at(url: str) -> str | None:
    """Why there is no good answer; None where there is one."""
    try:
        urlopen(url, timeout=SECONDS_MAX).close()  # noqa: S310 - the caller has checked that it is http
    except (OSError, HTTPException, ValueError) as error:
        return f"{url} does not answer ({getattr(error, 'reason', None) or type(error).__name__})"
    return None


def run_at_once(arguments: list[str]) -> None:
    """Run `dispatcher run probe URL` and end the process. Does nothing with other arguments, which the command line reads."""
    if arguments[:2] != ["run", "probe"] or len(arguments) != 3 or not arguments[2].startswith("http://"):
        return
    fault = fault_at(arguments[2])
    sys.stderr.write(f"{fault}\n" if fault else "")
    sys.exit(1 if fault else 0)
