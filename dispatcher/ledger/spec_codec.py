"""Campaigns in the ledger: their states, their balance, and the specs that their jobs share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from channels.base import Channel
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import Kind, OfferType


def spec_to_json(spec: Spec) -> str:
    """A spec as the ledger keeps it."""
    return json.dumps(
        {
            "template": spec.template,
            "entity": spec.entity,
            "channels": list(spec.channels),
            "kind": spec.kind,
            "offer_type": spec.offer_type,
            "route": spec.route,
            "send_at": spec.send_at.isoformat() if spec.send_at else None,
            "expires_at": spec.expires_at.isoformat() if spec.expires_at else None,
            "rate_per_second": spec.rate_per_second,
            "holdout_percent": spec.holdout_percent,
            "priority": spec.priority,
            "fallback_after_seconds": spec.fallback_after_seconds,
            "variants": spec.variants,
            "one_per_household": spec.one_per_household,
            "ttl_seconds": spec.ttl_seconds,
            "collapse_key": spec.collapse_key,
        },
        sort_keys=True,
    )


def spec_from_json(kept: Mapping[str, Any]) -> Spec:
    """The spec that `spec_to_json` wrote."""

    def moment(name: str) -> datetime | None:
        return datetime.fromisoformat(kept[name]) if kept[name] else None

    return Spec(
        template=kept["template"],
        entity=kept["entity"],
        channels=tuple(Channel(name) for name in kept["channels"]),
        kind=Kind(kept["kind"]),
        offer_type=OfferType(kept["offer_type"]) if kept["offer_type"] else None,
        route=kept["route"],
        send_at=moment("send_at"),
        expires_at=moment("expires_at"),
        rate_per_second=kept["rate_per_second"],
        holdout_percent=kept["holdout_percent"],
        priority=kept["priority"],
        fallback_after_seconds=kept["fallback_after_seconds"],
        variants=tuple((name, template) for name, template in kept["variants"]),
        one_per_household=kept["one_per_household"],
        ttl_seconds=kept["ttl_seconds"],
        collapse_key=kept["collapse_key"],
    )
