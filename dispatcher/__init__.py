"""An omnichannel dispatcher for a bank's commercial messages."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Let `celery -A dispatcher …` find the Celery application, without loading Celery for other importers."""
    if name == "app":
        import_module("dispatcher.tasks")  # registers the tasks
        return import_module("dispatcher.celery_app").app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
