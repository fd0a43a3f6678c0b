"""The short form of `make fuzz`. A file that breaks a promise is made smaller, and printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from tests.fuzz.checks import Target, check
from tests.fuzz.files import FileSpec, specs
from tests.support.services import make_services

FILES = 200


def test_no_row_and_no_opt_out_of_any_file_is_lost(shared_database: str, tmp_path: Path, numbers: Iterator[int]) -> None:
    with make_services(shared_database) as services:
        target = Target(services, shared_database, tmp_path)

        @settings(max_examples=FILES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(specs())
        def run(spec: FileSpec) -> None:
            assert check(target, spec, next(numbers)) == []

        run()
