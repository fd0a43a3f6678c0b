"""Several batches that wait for providers at the same time, in one thread.

A provider answers after 50 to 200 ms. A process that waited for each batch would be idle most of the time; more threads would take
turns at Python's lock for each socket event. Here each batch runs as a greenlet: where its HTTP client would wait for the network,
it gives way, and the process decides the next batch meanwhile. Providers and their wrappers know nothing of it. A provider that
waits in another way, such as SMTP, holds up the others, as it would without this module.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Protocol

from greenlet import getcurrent, greenlet

WAIT_SECONDS_MAX = 1.0


class Waiting(Protocol):
    """What a batch waits for."""

    def poll(self, seconds_max: float) -> bool:
        """Handle network activity; wait at most so long for some. Returns whether there was any."""
        ...


class _Task(greenlet):
    """One batch on its way."""

    messages: int = 0


def wait_for(source: Waiting) -> None:
    """Wait for network activity; within a task of `Overlap`, give way until there may be some."""
    task = getcurrent()
    if isinstance(task, _Task) and task.parent is not None:
        task.parent.switch(source)
    else:
        source.poll(WAIT_SECONDS_MAX)


class Overlap:
    """Runs functions that may wait, at most so many messages at a time. Used by one thread."""

    def __init__(self, messages_max: int) -> None:
        self._messages_max = messages_max
        self._waiting: dict[_Task, Waiting] = {}

    def make_room(self, messages: int) -> None:
        """Wait until this many more messages may be on their way. More than the maximum may be so alone."""
        while self._waiting and sum(task.messages for task in self._waiting) + messages > self._messages_max:
            self.poll(WAIT_SECONDS_MAX)

    def start(self, send: Callable[[], None], messages: int) -> None:
        """Run a function until it waits. Raises what it raises."""
        task = _Task(send)
        task.gr_context = copy_context()  # log lines of the batch carry the ids of its task
        task.messages = messages
        self._resume(task)

    def poll(self, seconds_max: float = 0.0) -> None:
        """Wait at most so long, and let all go on as far as they can without waiting. Raises what they raise."""
        is_active = True
        while is_active and (sources := set(self._waiting.values())):
            is_active = False
            for source in sources:
                is_active = source.poll(seconds_max / len(sources)) or is_active
            for task in list(self._waiting):
                self._resume(task)
            seconds_max = 0.0

    def __enter__(self) -> Overlap:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Wait until all functions have ended. Raises the first error after that: answers of the others must be recorded.

        What ends the process, such as a time limit, ends them where they wait if it comes a second time.
        """
        first = error
        while self._waiting:
            try:
                self.poll(WAIT_SECONDS_MAX)
            except BaseException as another:
                if first is not None and not isinstance(another, Exception):
                    self._interrupt(another)
                first = first or another
        if first is not None and first is not error:
            raise first

    def _interrupt(self, error: BaseException) -> None:
        for task in list(self._waiting):
            del self._waiting[task]
            with suppress(BaseException):  # each ends with it, after it has recorded its results
                task.throw(error)

    def _resume(self, task: _Task) -> None:
        try:
            source = task.switch()
        except BaseException:
            self._waiting.pop(task, None)
            raise
        if task.dead:
            self._waiting.pop(task, None)
        else:
            self._waiting[task] = source
