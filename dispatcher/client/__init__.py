"""The client for other systems in Python: calls the API, or puts sealed jobs on the broker.

    with Client("https://messages.bank.example", key="dsp_…") as client:
        client.submit_campaign({"id": "spring", "template": "loan_offer", "audience": {"upload": "spring.csv"}})

    client = BrokerClient("rediss://broker.example/0", public_key="…")
    client.send_trigger("order-17", "c-1", "coin_earned", {"coins_earned": 5})

`Client` and `AsyncClient` need `httpx`; `BrokerClient` needs `celery[redis]` and `cryptography`, which are loaded when it is first
named. Nothing else of the dispatcher is loaded than a few small modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatcher.client.api_errors import ApiError, ApiRefusal, ApiUnavailable, FeedBroken
from dispatcher.client.async_client import AsyncClient
from dispatcher.client.event_chain import FeedBatch, FeedPosition
from dispatcher.client.jobs import BrokerUnavailable, InvalidJob
from dispatcher.client.retries import CallRetries
from dispatcher.client.sync_client import Client

if TYPE_CHECKING:
    from dispatcher.client.broker import BrokerClient

__all__ = [
    "ApiError",
    "ApiRefusal",
    "ApiUnavailable",
    "AsyncClient",
    "BrokerClient",
    "BrokerUnavailable",
    "CallRetries",
    "Client",
    "FeedBatch",
    "FeedBroken",
    "FeedPosition",
    "InvalidJob",
]


def __getattr__(name: str) -> Any:
    """`BrokerClient`, which loads Celery."""
    if name != "BrokerClient":
        raise AttributeError(name)
    from dispatcher.client.broker import BrokerClient

    return BrokerClient
