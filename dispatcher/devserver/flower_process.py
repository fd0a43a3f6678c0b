"""Flower as a process whose log has the form of all others: `python -m dispatcher.devserver.flower_process`, then its options."""

from __future__ import annotations

import runpy
import sys

from dispatcher.runtime.logs import configure_logs

if __name__ == "__main__":
    configure_logs()
    # `none`: Tornado, on which Flower is built, leaves the root logger as it is.
    sys.argv = ["celery", "-A", "dispatcher", "--quiet", "flower", "--logging=none", *sys.argv[1:]]
    runpy.run_module("celery", run_name="__main__")
