"""Celery's settings, each with its reason. Imports nothing of this project; checked against the sources of Celery and kombu 5.7.

Two facts explain most of them. The broker carries only references, and the ledger is the source of truth: a broker message may
come twice or late, but should not get lost. Providers do not deduplicate: these settings only make sure that an interrupted task
runs again, and the claim in the ledger decides what it may send.
"""

import os
from pathlib import Path
from typing import Any

from kombu.entity import Exchange, Queue

HOME = Path(os.environ.get("DISPATCHER_HOME", "").strip() or "var")
SECRETS = os.environ.get("DISPATCHER_SECRETS", "").strip()
LANES = ("transactional", "campaign", "fanout", "inbound", "events", "clock", "maintenance")
# RabbitMQ only: a second queue of the lane `campaign`, for what goes first. Quorum queues have no priorities before RabbitMQ 4.0,
# and two since then. Each worker of the lane takes from both queues in turn, see `celery_app`.
CAMPAIGN_FIRST = "campaign.first"


def _secret(name: str) -> str:
    """A variable, or the file of its name in the folder of secrets, as the program reads it."""
    value, file = os.environ.get(name, "").strip(), Path(SECRETS, name).expanduser()
    return file.read_text(encoding="utf-8").strip() if SECRETS and not value and file.is_file() else value


# -- broker ------------------------------------------------------------------------------------------------------------

broker_url = _secret("DISPATCHER_BROKER_URL") or None  # None: the program sets the embedded broker's URL
broker_connection_retry_on_startup = True  # a worker that starts before its broker waits for it
broker_connection_max_retries = None  # without a limit: the default gives up after 100 tries, and then no worker runs
IS_RABBITMQ = (broker_url or "").startswith(("amqp://", "amqps://"))
_VALKEY_OPTIONS: dict[str, Any] = {
    # A message that is not acknowledged in this time is delivered again. It must exceed the longest task (task_time_limit), or
    # a running chunk is started a second time: harmless thanks to the claims, but a waste.
    "visibility_timeout": 600,
    # kombu looks for such messages every interval x throttle seconds, by default 10 x 10; once a second costs one ZRANGE.
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    # The process that looks holds a lock. If it is killed, the default would block all others for five minutes.
    "unacked_mutex_expire": 30,
    # A worker with several lanes takes them in turn; with "priority" and "sorted" a full lane starves the others.
    "queue_order_strategy": "round_robin",
    # Ten priorities, not kombu's four: each campaign's next chunk goes before other chunks of its priority, see `tasks.publish`.
    "priority_steps": list(range(10)),
    # A broker that disappears without closing (power, firewall) must not block a publish. Longer than the one-second BRPOP.
    "socket_timeout": 30.0,
    "socket_connect_timeout": 5.0,
    "socket_keepalive": True,
    "health_check_interval": 25,  # so idle consumers notice a dead broker within a minute
    # The client must not repeat a publish whose answer was lost: only the publisher knows whether that is safe.
    "retry_on_timeout": False,
}
SENTINEL_OPTIONS: dict[str, Any] = {}
if _master := os.environ.get("DISPATCHER_BROKER_SENTINEL", "").strip():
    SENTINEL_OPTIONS["master_name"] = _master
if _password := _secret("DISPATCHER_BROKER_SENTINEL_PASSWORD"):  # that of the Sentinels; the URL has the master's
    SENTINEL_OPTIONS["sentinel_kwargs"] = {"password": _password}
_RABBITMQ_OPTIONS: dict[str, Any] = {
    # A publish returns when a majority of the nodes has the message on disk. Without it, a message that the broker did not take
    # would be lost without an error.
    "confirm_publish": True,
    # A broker that disappears without closing must not block a publish, as above.
    "read_timeout": 30,
    "write_timeout": 30,
}
broker_transport_options = _RABBITMQ_OPTIONS if IS_RABBITMQ else _VALKEY_OPTIONS | SENTINEL_OPTIONS
# RabbitMQ, in seconds: a worker and the broker notice within two of them that the other one disappeared. Celery's default is 120.
broker_heartbeat = 20

# -- lanes -------------------------------------------------------------------------------------------------------------

# Quorum queues: a majority of the nodes has each message. By default RabbitMQ 4.0 deletes a message at its 21st delivery, and each
# attempt of a task while the ledger is away is one. What ends its worker again and again is refused by `broker_messages`.
QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}


def _queue(name: str) -> Queue:
    """A lane. RabbitMQ's exchanges are topics: Celery's delayed delivery needs that."""
    if not IS_RABBITMQ:
        return Queue(name, Exchange(name), routing_key=name)
    return Queue(name, Exchange(name, "topic"), routing_key=name, queue_arguments=QUORUM)


# Objects: Flower can't read the other forms.
task_queues = [_queue(name) for name in (*LANES, *((CAMPAIGN_FIRST,) if IS_RABBITMQ else ()))]
task_create_missing_queues = False  # a misspelt lane is an error at once, not a queue without a worker
task_default_queue = "maintenance"  # for a task without a route
task_routes = {
    "dispatcher.submit_campaign": {"queue": "fanout"},  # long and rare: must not delay chunks
    "dispatcher.keep_refused_job": {"queue": "maintenance"},
    "dispatcher.load_audience": {"queue": "fanout"},
    "dispatcher.trigger": {"queue": "transactional"},  # a person waits: own lane, own worker
    "dispatcher.send_trigger": {"queue": "transactional"},
    "dispatcher.send_chunk": {"queue": "campaign"},
    "dispatcher.publish_events": {"queue": "clock"},  # ends within half a second
    "dispatcher.deliver_webhooks": {"queue": "events"},  # waits for other systems' answers: nothing of ours may wait with it
    "dispatcher.deliver_kafka": {"queue": "events"},
    "dispatcher.write_event_files": {"queue": "events"},  # waits for object storage
    "dispatcher.settle_events": {"queue": "inbound"},  # provider events, opt-outs among them, must not wait for a campaign
    "dispatcher.record_heartbeat": {"queue": "maintenance"},  # beat puts one on each lane
    "dispatcher.release_due": {"queue": "clock"},  # every second: shares a process with nothing that can be long
    "dispatcher.sweep": {"queue": "maintenance"},
    "dispatcher.ask_providers": {"queue": "maintenance"},
    "dispatcher.retain": {"queue": "maintenance"},
    "dispatcher.poll_whatsapp_templates": {"queue": "maintenance"},
    "dispatcher.run_canaries": {"queue": "maintenance"},  # waits for our own web application: nothing of customers may wait with it
    "dispatcher.run_schedules": {"queue": "maintenance"},  # writes the first part of an audience at most; the fan-out lane goes on
}

# -- tasks -------------------------------------------------------------------------------------------------------------

task_serializer = "json"  # any language can write it, and reading it runs no code, as pickle would
accept_content = ["json"]
task_ignore_result = True  # the ledger holds the results; nobody would read a second store
task_store_errors_even_if_ignored = False  # errors are in the ledger and the log
task_acks_late = True  # acknowledged when done: a worker that dies leaves its message in the broker
task_reject_on_worker_lost = True  # also when only its child process dies: by default Celery then acknowledges the message
task_acks_on_failure = True  # a task that raised is not repeated; the sweep picks up its open work
task_acks_on_timeout = False  # a task killed by the hard limit did not finish: its message goes back
task_soft_time_limit = 480  # the task gets an exception, can settle its results, and ends
task_time_limit = 540  # the task is killed; less than visibility_timeout, so that it never runs beside its own redelivery
task_publish_retry_policy = {
    "max_retries": 5,
    "interval_start": 0.1,
    "interval_step": 0.3,
    "interval_max": 1.0,
}  # 4 s in total: a broker can restart in that time

# -- workers -----------------------------------------------------------------------------------------------------------

worker_prefetch_multiplier = 1  # with late acknowledgement: no worker holds back a message that an idle one could take
worker_cancel_long_running_tasks_on_connection_loss = (
    False  # True kills tasks between hand-off and settlement, which leaves unresolved messages
)
worker_soft_shutdown_timeout = 20.0  # on a second Ctrl-C tasks still get this long before their messages go back
# How long a new child may take to report to its worker. The default of 4 s is too short at low priority on a busy machine: the
# worker kills each child before it has started.
worker_proc_alive_timeout = 60.0
worker_consumer = "dispatcher.broker_messages:RefusalConsumer"  # Celery's own one deletes what it cannot read
worker_max_tasks_per_child = None  # a new child has to open connections and compile templates
worker_hijack_root_logger = False  # logging is set up by the program: structured, and without personal data
worker_redirect_stdouts = False  # same
worker_send_task_events = True  # Flower needs them; they contain names, ids and references only
task_send_sent_event = False  # this event contains the arguments; waiting tasks are visible in the lanes
event_queue_expires = 60  # Flower's queue disappears when Flower stops
result_backend = None  # see task_ignore_result

# -- time --------------------------------------------------------------------------------------------------------------

enable_utc = True
timezone = "UTC"  # the policy handles the recipients' time zones
beat_schedule_filename = str(HOME / "beat-schedule")
# `expires` drops a task that found no worker in time: the next one does the same, and they do not accumulate.
beat_schedule = {
    "release what is due": {"task": "dispatcher.release_due", "schedule": 1.0, "options": {"expires": 2}},
    "publish events": {"task": "dispatcher.publish_events", "schedule": 1.0, "options": {"expires": 2}},
    "look up unresolved messages": {"task": "dispatcher.ask_providers", "schedule": 8.0, "options": {"expires": 10}},
    "sweep": {"task": "dispatcher.sweep", "schedule": 5.0, "options": {"expires": 10}},
    "poll WhatsApp templates": {"task": "dispatcher.poll_whatsapp_templates", "schedule": 10.0, "options": {"expires": 20}},
    "write event files": {"task": "dispatcher.write_event_files", "schedule": 60.0, "options": {"expires": 90}},
    "run canaries": {"task": "dispatcher.run_canaries", "schedule": 10.0, "options": {"expires": 20}},
    "start scheduled runs": {"task": "dispatcher.run_schedules", "schedule": 10.0, "options": {"expires": 20}},
    "retain": {"task": "dispatcher.retain", "schedule": 3_600.0, "options": {"expires": 7_200}},
} | {
    # A heartbeat of each lane, ahead of what waits there.
    f"heartbeat of {lane}": {
        "task": "dispatcher.record_heartbeat",
        "schedule": 5.0,
        "options": {"queue": lane, "priority": 0, "expires": 10},
    }
    for lane in LANES
}
