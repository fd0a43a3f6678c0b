"""The logs of the web server, uvicorn, in the format of all others; its access log names neither addresses nor tokens."""

from __future__ import annotations

import logging
import re

_TOKEN = re.compile(r"^/(u|p)/.+", re.DOTALL)  # whoever has the token of a link can use it


def format_server_logs() -> None:
    """Let uvicorn's loggers use the format of the root logger. uvicorn has set up its own before it makes the application."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    logging.getLogger("uvicorn.access").filters[:] = [shorten_access]


def shorten_access(record: logging.LogRecord) -> bool:
    """Leave out the client's address, the query and the token of a link. A line that is not as expected is dropped."""
    if not (isinstance(record.args, tuple) and len(record.args) == 5):
        return False
    _address, method, path, _version, status = record.args
    record.msg, record.args = "%s %s %s", (method, _TOKEN.sub(r"/\1/…", str(path).partition("?")[0]), status)
    return True
