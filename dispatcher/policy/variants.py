"""Who is in the control group, and who gets which template in an A/B test. Pure, and always the same for one person."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from dispatcher.policy.data import GlobalControlGroup


def share_percent(salt: str, campaign_id: str, recipient_id: str) -> float:
    """A number from 0 up to 100, evenly distributed over people, always the same for one person in one campaign."""
    digest = hashlib.blake2b("\0".join((salt, campaign_id, recipient_id)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 * 100


def is_in_global_group(group: GlobalControlGroup, recipient_id: str) -> bool:
    """Whether a person is in the control group across campaigns: the same people in all of them."""
    return group.percent > 0 and share_percent(f"{group.salt}/global", "", recipient_id) < group.percent


def variant_of(salt: str, variants: Sequence[tuple[str, str]], campaign_id: str, recipient_id: str) -> str:
    """A person's template in an A/B test: evenly distributed, always the same, and independent of the control group."""
    share = share_percent(f"{salt}/variants", campaign_id, recipient_id)
    return variants[min(int(share * len(variants) / 100), len(variants) - 1)][1]
