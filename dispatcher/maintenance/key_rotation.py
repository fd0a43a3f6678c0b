"""Rotation of the secret key: re-key the addresses in the background, and show how far that is.

The SQL of the addresses is in `ledger/consent/address_keys.py`; the keys themselves are in `ledger/secret_keys.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dispatcher.ledger import secret_keys
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import address_keys
from dispatcher.ledger.secret_keys import KnownKey
from dispatcher.runtime.services import Services

BATCH_RECIPIENTS = 500  # in one transaction, which locks them for a fraction of a second


@dataclass(frozen=True, slots=True)
class RotationStatus:
    """The keys that the ledger was written with, newest first; how many recipients there are; and how many suppressions of
    addresses that nobody has any more may need a former key.
    """

    keys: tuple[KnownKey, ...]
    recipients: int
    unknown_suppressions: int

    @property
    def is_finished(self) -> bool:
        """Whether all known addresses are under the newest key."""
        return self.keys[0].rekeyed_at is not None


def status(services: Services) -> RotationStatus:
    """How far the rotation is."""
    with lend(services.pool) as connection:
        keys = tuple(secret_keys.known_keys(connection))
        unknown = address_keys.suppressions_of_unknown(connection) if len(keys) > 1 else 0
        return RotationStatus(keys, address_keys.recipients_total(connection), unknown)


def rotate(services: Services, progress: Callable[[int], None]) -> None:
    """Re-key the addresses of all recipients; goes on where an earlier run was cut off. `progress` gets the number done."""
    with lend(services.pool) as connection:
        newest = secret_keys.known_keys(connection)[0]
        done = newest.rekeyed
        while newest.rekeyed_at is None:
            progress(done)
            count = address_keys.rekey_some(connection, services.secret, BATCH_RECIPIENTS, services.clock())
            if not count:
                return
            done += count
