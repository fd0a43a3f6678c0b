"""Tasks that the previous version put on the broker, and those that it takes from there while two versions run side by side."""

from __future__ import annotations

import inspect

import pytest

from dispatcher import tasks
from dispatcher.celery_app import app

# The internal tasks that programs on the main branch publish, with their arguments. A new argument gets a default, or the task a
# new name; a task is removed one release after nobody publishes it. What no worker knows is refused and kept, and chunks are
# published again by the ledger.
RELEASED = {
    "dispatcher.ask_providers": (),
    "dispatcher.deliver_kafka": (),
    "dispatcher.deliver_webhooks": (),
    "dispatcher.keep_refused_job": ("job",),
    "dispatcher.load_audience": ("number", "is_stalled"),
    "dispatcher.poll_whatsapp_templates": (),
    "dispatcher.publish_events": (),
    "dispatcher.record_heartbeat": (),
    "dispatcher.release_due": (),
    "dispatcher.retain": (),
    "dispatcher.run_schedules": (),
    "dispatcher.run_canaries": (),
    "dispatcher.send_chunk": ("period", "number"),
    "dispatcher.send_trigger": ("period", "number"),
    "dispatcher.settle_events": (),
    "dispatcher.sweep": (),
    "dispatcher.write_event_files": (),
}
PUBLIC = {"dispatcher.submit_campaign", "dispatcher.trigger"}  # they take any arguments, and refuse what they cannot read


@pytest.mark.parametrize("name", RELEASED)
def test_a_task_takes_what_the_previous_version_publishes(name: str) -> None:
    assert tasks
    parameters = list(inspect.signature(app.tasks[name].run).parameters.values())
    known = len(RELEASED[name])
    assert tuple(parameter.name for parameter in parameters[:known]) == RELEASED[name]
    assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters[known:])


def test_each_task_is_listed() -> None:
    names = {name for name in app.tasks if name.startswith("dispatcher.")}
    assert names - PUBLIC == set(RELEASED)
