"""A second, independent implementation of what may be sent: the demo compares the sandbox's log with the imported customers.

It is written from the bank's commitments to its customers, not from the policy's code: it reads the import file and the sandbox's
arrivals, uses neither ledger nor policy, and knows only the demo's templates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any

OFFER_OF = {"loan_offer": "own", "train_ticket": "partner", "coin_earned": "kate"}  # a service template has none
SWITCH_OF = {"email": "email", "push": "push", "sms": "sms_whatsapp", "whatsapp": "sms_whatsapp"}


class DeliveryChecker:
    """Finds the customer of each arrival by address, and checks whether the message was allowed."""

    def __init__(self, customers: Iterable[Mapping[str, Any]], today: date) -> None:
        self._today = today
        self._people: dict[tuple[str, str], Mapping[str, Any]] = {}
        for customer in customers:
            for place in _places(customer):
                self._people[place] = customer

    def judge(self, arrivals: Iterable[Mapping[str, Any]], templates: Mapping[str, str]) -> list[str]:
        """What must not have arrived, in sentences with ids. `templates` gives the template of each message id."""
        errors: list[str] = []
        seen: Counter[tuple[str, str]] = Counter()
        for arrival in arrivals:
            message_id, channel = arrival["message_id"], arrival["channel"]
            person = self._people.get((channel, arrival["address"]))
            if person is None:
                errors.append(f"{message_id}: {channel} went to an address that no customer gave")
                continue
            seen[message_id, arrival["address"]] += 1
            errors += (
                f"{message_id} to {person['id']}: {why}" for why in self._objections(person, channel, templates.get(message_id))
            )
        errors += (f"{message_id}: arrived {count} times" for (message_id, _), count in seen.items() if count > 1)
        return errors

    def _objections(self, person: Mapping[str, Any], channel: str, template: str | None) -> Iterator[str]:
        if template is None:
            yield "nobody requested it"
            return
        offer = OFFER_OF.get(template)
        if offer is None:
            return
        choice = person.get("offers", {}).get(offer)
        if choice not in ("tailored", "standard"):
            yield f"chose {choice} for {offer} offers"
        if person.get("object_marketing"):
            yield "objects to marketing"
        if not _switched_on(person, SWITCH_OF[channel]):
            yield f"has {channel} off"
        if choice == "tailored" and not self._adult(person):
            yield "is not known to be an adult"
        if offer == "kate" and (choice != "tailored" or not person.get("has_current_account")):
            yield "may not get coins"

    def _adult(self, person: Mapping[str, Any]) -> bool:
        if "birth_date" not in person:
            return False
        born = date.fromisoformat(person["birth_date"])
        return (self._today.year - born.year) - ((self._today.month, self._today.day) < (born.month, born.day)) >= 18


def _switched_on(person: Mapping[str, Any], switch: str) -> bool:
    """A switch as set. If it was never set, it is on for a customer who accepted a tailored contract, and off for all others."""
    switches = person.get("channels", {})
    if switch in switches:
        return bool(switches[switch])
    return "tailored" in person.get("offers", {}).values()


def _places(customer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "email" in customer:
        yield "email", customer["email"]
    if "phone" in customer:
        yield "sms", customer["phone"].replace(" ", "")
    if "whatsapp" in customer:
        yield "whatsapp", customer["whatsapp"]
    for device in customer.get("push", ()):
        if device["permission"]:
            yield "push", device["token"]
