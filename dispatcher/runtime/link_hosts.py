"""The hosts that links of an entity's messages may name. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from dispatcher.content import LinkHosts, host_of
from dispatcher.policy.data import Entity


def link_hosts(entity: Entity, public_url: str = "") -> LinkHosts:
    """The entity's own hosts, that of our public address, and its partners'. The same object for the same hosts."""
    return _link_hosts(entity.sender_address, entity.contact, public_url, entity.hosts, _frozen(entity.partners))


def _frozen(partners: Mapping[str, frozenset[str]]) -> tuple[tuple[str, frozenset[str]], ...]:
    return tuple(partners.items())


@lru_cache(maxsize=256)
def _link_hosts(
    address: str, contact: str, public_url: str, hosts: frozenset[str], partners: tuple[tuple[str, frozenset[str]], ...]
) -> LinkHosts:
    own = {address.rpartition("@")[2].lower(), host_of(contact), host_of(public_url), *hosts} - {""}
    return LinkHosts(frozenset(own), dict(partners))
