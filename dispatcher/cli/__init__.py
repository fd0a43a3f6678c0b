"""The `dispatcher` command. Each subcommand calls one use case and prints the result."""

from __future__ import annotations

import gc
import logging
import sys


def main() -> None:
    """The console script."""
    # A command allocates much and throws little away: collections at Python's default thresholds take a sixth of its time.
    gc.set_threshold(50_000, 20, 100)

    from dispatcher.cli.probe import run_at_once

    run_at_once(sys.argv[1:])

    from dispatcher.cli.command_groups import command_line
    from dispatcher.cli.errors import run
    from dispatcher.runtime.logs import configure_logs

    configure_logs(logging.WARNING)  # stdout is for results
    sys.exit(run(command_line(*sys.argv[1:2]), sys.argv[1:]))
