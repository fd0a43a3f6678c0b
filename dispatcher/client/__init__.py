"""The client for other systems in Python: checks campaigns and triggers, seals them, and puts them on the broker.

    client = BrokerClient("rediss://broker.example/0", public_key="…")
    client.send_trigger("order-17", "c-1", "coin_earned", {"coins_earned": 5})

It needs `celery[redis]` and `cryptography`, and loads nothing else of the dispatcher than a few small modules.
"""

from dispatcher.client.broker import BrokerClient
from dispatcher.client.jobs import BrokerUnavailable, InvalidJob

__all__ = ["BrokerClient", "BrokerUnavailable", "InvalidJob"]
