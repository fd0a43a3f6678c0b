"""Celery's settings, each with its reason. Imports nothing of ours; checked against the sources of Celery and kombu 5.7.

Two facts shape it. The broker carries references and never the truth (that is the ledger), so a message may come twice or late,
but must not get lost. And no provider forgives a double, so work that was cut off is never repeated blindly: the claim in the
ledger decides, and these settings only see to it that the question is asked again.
"""

import os
from pathlib import Path

from kombu.entity import Exchange, Queue

HOME = Path(os.environ.get("DISPATCHER_HOME", "").strip() or "var")
LANES = ("transactional", "campaign", "fanout", "inbound", "maintenance")

# -- broker ------------------------------------------------------------------------------------------------------------

broker_url = os.environ.get("DISPATCHER_BROKER_URL", "").strip() or None  # None: the program sets the embedded one's
broker_connection_retry_on_startup = True  # a worker that starts before its broker waits for it
broker_connection_max_retries = None  # and waits for ever: the default gives up after 100 tries, and then nobody works
broker_transport_options = {
    # A message that nobody acknowledged in this time is given out again. It must exceed the longest task (task_time_limit), or
    # a chunk still at work is started a second time: harmless thanks to the claims, but wasted.
    "visibility_timeout": 600,
    # kombu looks for such messages every interval x throttle seconds, by default 10 x 10; once a second costs one ZRANGE.
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    # Who looks holds a lock; killed while he looks, he would keep everybody from looking for five minutes.
    "unacked_mutex_expire": 30,
    # Of several lanes of one worker each gets its turn; "priority" and "sorted" let a full lane starve the rest.
    "queue_order_strategy": "round_robin",
    # Ten priorities are ten, not kombu's four: each campaign's next chunk goes before the rest of its like, see `tasks.publish`.
    "priority_steps": list(range(10)),
    # A broker that vanishes without goodbye (power, firewall) must not hang a publish for ever. Longer than the one-second BRPOP.
    "socket_timeout": 30.0,
    "socket_connect_timeout": 5.0,
    "socket_keepalive": True,
    "health_check_interval": 25,  # and idle consumers find out within a minute
    # The client must not repeat a publish whose answer was lost: the publisher knows whether it may.
    "retry_on_timeout": False,
}

# -- lanes -------------------------------------------------------------------------------------------------------------

task_queues = [Queue(lane, Exchange(lane), routing_key=lane) for lane in LANES]  # objects: Flower can't read the other forms
task_create_missing_queues = False  # a misspelt lane is an error at once, not a queue without a worker
task_default_queue = "maintenance"  # a task without a route is ours and waits for nobody
task_routes = {
    "dispatcher.submit_campaign": {"queue": "fanout"},  # long and rare: must not stand before chunks
    "dispatcher.trigger": {"queue": "transactional"},  # a person waits: own lane, own worker
    "dispatcher.send_trigger": {"queue": "transactional"},
    "dispatcher.send_chunk": {"queue": "campaign"},
    "dispatcher.settle_events": {"queue": "inbound"},  # providers' news, opt-outs among them, must not wait for a campaign
    "dispatcher.release_due": {"queue": "maintenance"},
    "dispatcher.sweep": {"queue": "maintenance"},
    "dispatcher.ask_providers": {"queue": "maintenance"},
    "dispatcher.retain": {"queue": "maintenance"},
}

# -- tasks -------------------------------------------------------------------------------------------------------------

task_serializer = "json"  # any language can write it, and reading it runs no code, as pickle would
accept_content = ["json"]
task_ignore_result = True  # the ledger is the result; a second store would be written for nobody
task_store_errors_even_if_ignored = False  # errors too are the ledger's and the log's
task_acks_late = True  # acknowledged when done: a worker that dies leaves its message in the broker
task_reject_on_worker_lost = True  # also when only its child process dies: without this Celery acknowledges and forgets
task_acks_on_failure = True  # a task that raised has been heard; the sweep finds what it left, endless repeats help nobody
task_acks_on_timeout = False  # a task killed by the hard limit has said nothing: it goes back
task_soft_time_limit = 480  # the task is told, may settle what it knows, and ends
task_time_limit = 540  # it is killed: less than visibility_timeout, so that it never runs beside its own repetition
task_publish_retry_policy = {
    "max_retries": 5,
    "interval_start": 0.1,
    "interval_step": 0.3,
    "interval_max": 1.0,
}  # 4 s: a restart's length

# -- workers -----------------------------------------------------------------------------------------------------------

worker_prefetch_multiplier = 1  # with late acknowledgement: nobody reserves a message that an idle neighbour could take
worker_cancel_long_running_tasks_on_connection_loss = (
    False  # True kills tasks between hand-off and record: each leaves doubtful sends
)
worker_soft_shutdown_timeout = 20.0  # on a second Ctrl-C tasks still get this long before their messages go back
worker_max_tasks_per_child = None  # a fresh child costs its connections and compiled templates
worker_hijack_root_logger = False  # logging is set up by the program: structured, and without personal data
worker_redirect_stdouts = False  # same
worker_send_task_events = True  # Flower's lifeblood; names, ids and references only
task_send_sent_event = False  # a publisher writes this event, arguments included; what waits shows in the lanes
event_queue_expires = 60  # Flower's queue goes when Flower goes
result_backend = None  # see task_ignore_result

# -- time --------------------------------------------------------------------------------------------------------------

enable_utc = True
timezone = "UTC"  # one clock; people's zones are the policy's business
beat_schedule_filename = str(HOME / "beat-schedule")
# `expires` lets an order that found no worker in time lapse: the next one does the same, and they don't pile up.
beat_schedule = {
    "release what is due": {"task": "dispatcher.release_due", "schedule": 1.0, "options": {"expires": 2}},
    "ask what became of it": {"task": "dispatcher.ask_providers", "schedule": 8.0, "options": {"expires": 10}},
    "sweep": {"task": "dispatcher.sweep", "schedule": 5.0, "options": {"expires": 10}},
    "retain": {"task": "dispatcher.retain", "schedule": 3_600.0, "options": {"expires": 7_200}},
}
