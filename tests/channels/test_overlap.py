"""Several batches wait for their answers at once: none is lost, whatever ends the others."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial

import pytest

from channels.overlap import Overlap, wait_for


@dataclass(eq=False, slots=True)
class Network:
    """Answers one request each time that somebody waits for it."""

    sent: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    most: int = 0
    on_poll: Callable[[], None] = lambda: None

    def poll(self, seconds_max: float) -> bool:
        """See `channels.overlap.Waiting`."""
        self.most = max(self.most, len(self.sent) - len(self.answered))
        self.on_poll()
        if not seconds_max or len(self.sent) == len(self.answered):
            return False
        self.answered.append(self.sent[len(self.answered)])
        return True

    def request(self, name: str) -> None:
        """Send a request, and wait for its answer."""
        self.sent.append(name)
        while name not in self.answered:
            wait_for(self)


class Ended(BaseException):
    """As a time limit."""


def run(send: Callable[[str], None]) -> None:
    """Three batches of one message each."""
    with Overlap(9) as sends:
        for name in "abc":
            sends.start(partial(send, name), 1)


def test_batches_wait_together_up_to_the_maximum() -> None:
    network, done = Network(), []

    def send(name: str) -> None:
        network.request(name)
        done.append(name)

    with Overlap(4) as sends:
        for name in "abcde":
            sends.make_room(2)
            sends.start(partial(send, name), 2)
        assert done == ["a", "b", "c"]  # d and e are on their way
    assert (done, network.most) == (list("abcde"), 2)


def test_a_batch_larger_than_the_maximum_goes_alone() -> None:
    network = Network()
    with Overlap(4) as sends:
        for name in "ab":
            sends.make_room(9)
            sends.start(partial(network.request, name), 9)
    assert network.most == 1


def test_an_error_of_one_is_raised_after_the_others_have_ended() -> None:
    network, done = Network(), []

    def send(name: str) -> None:
        network.request(name)
        if name == "a":
            raise ValueError(name)
        done.append(name)

    with pytest.raises(ValueError, match="a"):
        run(send)
    assert done == ["b", "c"]


@pytest.mark.parametrize("interruptions", [1, 2])
def test_a_time_limit_leaves_time_for_answers_and_a_second_one_none(interruptions: int) -> None:
    network = Network()
    ends: list[str] = []
    left = interruptions

    def interrupt() -> None:
        nonlocal left
        if left and len(network.sent) == 3:
            left -= 1
            raise Ended

    network.on_poll = interrupt

    def send(name: str) -> None:
        try:
            network.request(name)
            ends.append("answered")
        except Ended:
            ends.append("interrupted")
            raise

    with pytest.raises(Ended):
        run(send)
    assert ends == (["answered"] * 3 if interruptions == 1 else ["interrupted"] * 3)


def test_a_batch_knows_what_its_log_lines_are_about() -> None:
    campaign: ContextVar[str] = ContextVar("campaign", default="")
    network, seen = Network(), []

    def send() -> None:
        network.request("a")
        seen.append(campaign.get())

    campaign.set("spring")
    with Overlap(9) as sends:
        sends.start(send, 1)
        campaign.set("summer")
    assert seen == ["spring"]


def test_outside_of_a_batch_it_waits_itself() -> None:
    network = Network()
    network.request("a")
    assert network.answered == ["a"]
