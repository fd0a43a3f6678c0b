"""Addresses as people see them by default: enough to recognise one that the customer names, not enough to use it. Pure."""

from __future__ import annotations

DOT = "•"
VISIBLE_LAST = 2  # digits of a telephone number
TOKEN_VISIBLE = 4


def masked_email(address: str) -> str:
    """The first character and the domain: `a…@example.org`."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}…@{domain}"


def masked_phone(number: str) -> str:
    """The country code of two digits, the next digit and the last two: `+32 4•• •• •• 12`. A short number shows the last two."""
    digits = number.removeprefix("+")
    if len(digits) < 8:
        return f"{DOT * max(len(digits) - VISIBLE_LAST, 0)}{digits[-VISIBLE_LAST:]}"
    hidden = digits[2] + DOT * (len(digits) - 3 - VISIBLE_LAST) + digits[-VISIBLE_LAST:]
    first = 3 if len(hidden) % 2 else 2
    groups = [hidden[:first], *(hidden[at : at + 2] for at in range(first, len(hidden), 2))]
    return f"+{digits[:2]} {' '.join(groups)}"


def masked_token(token: str) -> str:
    """The last characters of a device's token."""
    return f"…{token[-TOKEN_VISIBLE:]}" if len(token) > 2 * TOKEN_VISIBLE else "…"
