"""Jobs by way of the broker: sealed for the workers, and published for Celery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import ChannelError, OperationalError

from dispatcher.client import rabbitmq
from dispatcher.client.jobs import BrokerUnavailable, CampaignExtras, TriggerExtras, campaign_job, trigger_job
from dispatcher.domain.broker_url import common_spelling, is_rabbitmq
from dispatcher.domain.refused_job import CAMPAIGN_TASK, TRIGGER_TASK
from dispatcher.domain.sealed_jobs import FIELD, check_public_key, seal

LANES = {CAMPAIGN_TASK: "fanout", TRIGGER_TASK: "transactional"}
EXPIRES_AFTER = timedelta(days=1)
HIDDEN = "(sealed)"
# 4 s in total. A repetition is safe: a job is accepted once per id or key.
RETRY = {"max_retries": 5, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 1.0}
VALKEY = {"socket_timeout": 10.0, "socket_connect_timeout": 5.0}
RABBITMQ = {"confirm_publish": True, "read_timeout": 10, "write_timeout": 10}  # confirm: a send returns when the broker has the job


class BrokerClient:
    """Puts campaigns and triggers on the broker. Safe to share between threads.

    `public_key` is what `dispatcher keys public` prints. A job that no worker took in `expires_after` is not accepted any more, and
    listed as refused.
    """

    def __init__(self, broker_url: str, public_key: str, expires_after: timedelta = EXPIRES_AFTER) -> None:
        self._public_key = check_public_key(public_key)
        self._expires_after = expires_after
        self._celery = Celery("dispatcher.client", broker=common_spelling(broker_url), set_as_current=False)
        self._celery.conf.update(task_serializer="json", accept_content=["json"], task_ignore_result=True)
        if is_rabbitmq(broker_url):
            rabbitmq.install()
            self._celery.conf.update(broker_transport_options=RABBITMQ, task_queues=_undeclared_lanes())
        else:
            self._celery.conf.update(broker_transport_options=VALKEY)

    def send_trigger(
        self, key: str, recipient: str, template: str, data: Mapping[str, Any], **extras: Unpack[TriggerExtras]
    ) -> str:
        """Put a trigger on the broker; returns its key. Repeat it with the same key where the outcome is not known.

        Raises `InvalidJob` and `BrokerUnavailable`.
        """
        self._publish(TRIGGER_TASK, trigger_job(key, recipient, template, data, extras), extras.get("expires_at"))
        return key

    def submit_campaign(
        self, campaign_id: str, audience: str | Mapping[str, str] | Sequence[Mapping[str, Any]], **extras: Unpack[CampaignExtras]
    ) -> str:
        """Put a campaign on the broker; returns its id. Repeat it with the same id where the outcome is not known.

        `audience` are rows or, for more than some 10,000, the name of a file in the workers' DISPATCHER_AUDIENCES or
        {"upload": ID}. Raises `InvalidJob` and `BrokerUnavailable`.
        """
        self._publish(CAMPAIGN_TASK, campaign_job(campaign_id, audience, extras), extras.get("expires_at"))
        return campaign_id

    def close(self) -> None:
        """Close the connections to the broker."""
        self._celery.close()

    def _publish(self, task: str, job: Mapping[str, Any], expires_at: datetime | None) -> None:
        expires = datetime.now(UTC) + self._expires_after
        sealed = seal(task, job, self._public_key)
        try:
            self._celery.send_task(
                task,
                ({FIELD: sealed},),
                queue=LANES[task],
                expires=min(expires, expires_at) if expires_at else expires,
                argsrepr=HIDDEN,
                kwargsrepr=HIDDEN,
                retry_policy=RETRY,
            )
        except (OperationalError, OSError) as error:
            raise BrokerUnavailable(f"the broker cannot be reached ({type(error).__name__}); repeat the call") from error
        except ChannelError as error:  # RabbitMQ
            what = f"RabbitMQ does not take jobs for the lane {LANES[task]} ({type(error).__name__})"
            raise BrokerUnavailable(f"{what}: has a worker declared it, and may this user write to it?") from error


def _undeclared_lanes() -> list[Queue]:
    """The lanes as the workers have declared them: who only publishes needs no right to configure RabbitMQ."""
    return [Queue(lane, Exchange(lane, "topic", no_declare=True), routing_key=lane, no_declare=True) for lane in LANES.values()]
