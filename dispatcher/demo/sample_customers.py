"""Made-up customers for the demo and for tests: the same seed gives the same people. None of them exists.

E-mail addresses end in example.com or example.org (RFC 2606). Belgium reserves no telephone numbers for fiction; these are in
+32 450, the block from which libphonenumber takes its Belgian example.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

_FIRST_NAMES: Mapping[str, Sequence[str]] = {
    "nl": ("Emma", "Noor", "Lars", "Wout", "Lotte", "Jef", "Fien", "Bram", "Hilde", "Koen", "Griet", "Dirk"),
    "fr": ("Élise", "Hugo", "Chloé", "François", "Amélie", "Benoît", "Inès", "Loïc", "Maëlle", "Guy", "Zoé", "Régis"),
    "de": ("Jürgen", "Heidi", "Jonas", "Käthe", "Moritz", "Anke", "Björn", "Liesel", "Uwe", "Grit", "Emil", "Ruth"),
    "en": ("Grace", "Oliver", "Amara", "Noah", "Priya", "Callum", "Isla", "Femi", "Ruby", "Theo", "Maya", "Owen"),
}
_LAST_NAMES = (
    *("Peeters", "Janssens", "Maes", "Dubois", "Lambert", "Claes", "Wouters", "Dumont", "Leroy", "Schmitz", "Müller"),
    *("Van den Broeck", "D'Hondt", "Renard", "Okafor", "Yılmaz", "El Amrani", "Nguyễn", "O'Neill", "Baert", "Collard"),
)
_CITIES = ("Gent", "Liège", "Leuven", "Namur", "Eupen", "Brugge", "Mons", "Hasselt", "Bruxelles", "Oostende")
_PROJECTS: Mapping[str, Sequence[str]] = {
    "nl": ("je nieuwe badkamer", "je elektrische fiets", "je zonnepanelen"),
    "fr": ("votre nouvelle salle de bains", "votre vélo électrique", "vos panneaux solaires"),
    "de": ("Ihr neues Badezimmer", "Ihr Elektrofahrrad", "Ihre Solaranlage"),
    "en": ("your new bathroom", "your electric bicycle", "your solar panels"),
}
_PRODUCTS = ("loan", "mortgage", "insurance", "savings", "investment")
_HOBBIES = ("cycling", "reading", "gardening", "football", "travel", "cooking")


def customers(count: int, seed: int, today: date) -> Iterator[str]:
    """`count` recipients as JSONL lines for the import, ids c-1, c-2 …, ages as of `today`.

    They cover every case that a decision distinguishes: choices of each mode and none at all, switches, objections, missing
    addresses, minors and unknown ages, accounts or not, several devices or refused ones, pairs of partners.
    """
    rng = random.Random(seed)  # noqa: S311 - made-up people need no secrets
    for number in range(1, count + 1):
        yield json.dumps(_customer(rng, number, count, today), ensure_ascii=False)


def _customer(rng: random.Random, number: int, count: int, today: date) -> dict[str, Any]:
    language = rng.choices(("nl", "fr", "de", "en"), (55, 36, 3, 6))[0]
    person = rng.choices(("customer", "former", "platform_user", "prospect"), (82, 5, 7, 6))[0]
    first, last = rng.choice(_FIRST_NAMES[language]), rng.choice(_LAST_NAMES)
    row: dict[str, Any] = {
        "id": f"c-{number}",
        "person": person,
        "language": language,
        "entities": [] if person == "prospect" else _some(rng, ("kbc-bank", "cbc-banque", "kbc-insurance")),
        "has_current_account": person == "customer" and rng.random() < 0.85,
        "push": [_device(rng, number, place) for place in range(rng.choices((0, 1, 2, 3), (25, 55, 15, 5))[0])],
        "purchased": _some(rng, _PRODUCTS) if person != "prospect" and rng.random() < 0.6 else [],
        "profile": _profile(rng, language, first, last),
        **_addresses(rng, number, first, last),
        **_choices(rng),
    }
    if rng.random() < 0.9:
        row["timezone"] = rng.choices(("Europe/Brussels", "Europe/Lisbon", "America/New_York"), (96, 3, 1))[0]
    if rng.random() < 0.94:
        youngest, oldest = (8, 17) if rng.random() < 0.05 else (18, 95)
        row["birth_date"] = (today - timedelta(days=rng.randint(youngest * 366, oldest * 365))).isoformat()
    mate = number + 1 if number % 2 else number - 1
    if number % 10 < 4 and 1 <= mate <= count and mate % 10 < 4:  # both or neither: partners are registered as a pair
        row["partner"] = f"c-{mate}"
    return row


def _some(rng: random.Random, among: Sequence[str]) -> list[str]:
    return sorted(rng.sample(among, rng.randint(1, 2)))


def _device(rng: random.Random, number: int, place: int) -> dict[str, Any]:
    return {
        "token": f"demo-{number}-{place}-{rng.getrandbits(64):016x}",
        "platform": rng.choices(("android", "ios", "web"), (55, 40, 5))[0],
        "permission": rng.random() < 0.85,
    }


def _addresses(rng: random.Random, number: int, first: str, last: str) -> dict[str, str]:
    name = unicodedata.normalize("NFKD", f"{first}.{last}".lower().replace("ı", "i")).encode("ascii", "ignore").decode()
    local = "".join(character for character in name if character.isalnum() or character == ".")
    phone = f"+32450{number % 1_000_000:06d}"
    found = {}
    if rng.random() < 0.93:
        found["email"] = f"{local}.{number}@example.{rng.choice(('com', 'org'))}"
    if rng.random() < 0.88:
        found["phone"] = f"{phone[:3]} {phone[3:6]} {phone[6:8]} {phone[8:10]} {phone[10:]}"
    if rng.random() < 0.6:
        found["whatsapp"] = phone
    return found


def _choices(rng: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    offers = {
        offer: rng.choices(("tailored", "standard", "none"), weights)[0]
        for offer, weights in (("own", (55, 30, 15)), ("partner", (40, 25, 35)), ("kate", (60, 15, 25)))
        if rng.random() < 0.92
    }
    if offers and rng.random() < 0.95:
        found["offers"] = offers
    if rng.random() < 0.6:
        found["channels"] = {group: rng.random() < 0.75 for group in ("email", "push", "sms_whatsapp")}
    if rng.random() < 0.5:
        found["object_marketing"] = rng.random() < 0.08
    if rng.random() < 0.1:
        found["object_profiling"] = rng.random() < 0.3
    return found


def _profile(rng: random.Random, language: str, first: str, last: str) -> dict[str, dict[str, Any]]:
    profile: dict[str, dict[str, Any]] = {"identity": {"first_name": first, "last_name": last, "city": rng.choice(_CITIES)}}
    if rng.random() < 0.8:
        profile["transactions"] = {
            "project": rng.choice(_PROJECTS[language]),
            "amount": rng.randrange(2_000, 25_000, 500),
            "destination": rng.choice(_CITIES),
        }
    if rng.random() < 0.7:
        profile["coins"] = {"coins_total": rng.randint(0, 400)}
    if rng.random() < 0.4:
        profile["hobbies"] = {"hobby": rng.choice(_HOBBIES)}
    if rng.random() < 0.3:
        profile["household"] = {"household_size": rng.randint(1, 6)}
    return profile
