"""The claim protocol holds in a thousand schedules of steps, and the simulation notices when a part of it is taken out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from dispatcher.runtime.services import Services
from tests.support.claim_simulation import BOUND_SECONDS, SIMULATED_CLOCK, WITHOUT_FENCE, Simulation
from tests.support.services import make_services

SCHEDULES = int(os.environ.get("SCHEDULES", "1000"))
PARTS = 4  # of the schedules: one test each, so that a failure names a seed within its part
UNTIL_FOUND = 400  # schedules in which a simulation without a part of the protocol must find a fault


def simulated(database: str, *more: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in (SIMULATED_CLOCK, *more):
            connection.execute(statement.encode())


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    simulated(database)
    with make_services(database) as made:
        yield replace(made, limits=replace(made.limits, send_deadline_seconds=BOUND_SECONDS))


@pytest.mark.parametrize("part", range(PARTS))
def test_no_schedule_breaks_the_promise(services: Services, part: int) -> None:
    for seed in range(part, SCHEDULES, PARTS):
        assert Simulation(services, seed).run() == [], f"seed {seed}"


def finds(services: Services, what: str, lost_settles: float) -> bool:
    """Whether one of the schedules shows a fault of this kind."""
    simulations = (Simulation(services, seed, lost_settles=lost_settles) for seed in range(UNTIL_FOUND))
    return any(what in fault for simulation in simulations for fault in simulation.run())


def test_without_a_deadline_the_simulation_finds_late_arrivals(services: Services) -> None:
    endless = replace(services, limits=replace(services.limits, send_deadline_seconds=1e9))
    assert finds(endless, "s after the opt-out", lost_settles=0.0)


def test_without_the_fence_the_simulation_finds_a_double(database: str) -> None:
    simulated(database, WITHOUT_FENCE)
    with make_services(database) as made:
        services = replace(made, limits=replace(made.limits, send_deadline_seconds=BOUND_SECONDS))
        assert finds(services, "got 2 messages", lost_settles=0.6)
