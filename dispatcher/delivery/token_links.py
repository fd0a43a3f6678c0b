"""The reader's own links, with tokens that name the message. A token takes microseconds, and most texts use one or none."""

from __future__ import annotations

from functools import lru_cache

from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, message_id_token
from dispatcher.content import host_of
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message_id import MessageId


class TokenLinks:
    """`ReaderLinks` whose tokens are made when they are first read."""

    __slots__ = ("_preferences", "_public_url", "_ref", "_secret", "_unsubscribe")

    def __init__(self, secret: KeyRing, public_url: str, ref: MessageId) -> None:
        self._secret, self._public_url, self._ref = secret, public_url, ref
        self._unsubscribe = self._preferences = ""

    @property
    def unsubscribe(self) -> str:
        """The link for one-click unsubscribe (RFC 8058)."""
        if not self._unsubscribe:
            self._unsubscribe = f"{self._public_url}/u/{message_id_token(self._secret, UNSUBSCRIBE, self._ref)}"
        return self._unsubscribe

    @property
    def preferences(self) -> str:
        """The link to the preference centre."""
        if not self._preferences:
            self._preferences = f"{self._public_url}/p/{message_id_token(self._secret, PREFERENCES, self._ref)}"
        return self._preferences

    @property
    def hosts(self) -> frozenset[str]:
        """The host of the public address."""
        return _hosts(self._public_url)


@lru_cache(maxsize=8)  # one address per process; tests have more
def _hosts(public_url: str) -> frozenset[str]:
    host = host_of(f"{public_url}/")
    return frozenset({host}) if host else frozenset()
