"""Assign the columns of a spreadsheet to `recipient` and the variables of a campaign's templates."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

from dispatcher.domain.notation import trim
from dispatcher.intake.audience import COLUMNS
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.rows import IGNORED

SIMILARITY_MIN = 0.85  # of names that are guessed to be the same
# What people call the column with the recipient's id, in the four languages, without blanks and accents.
RECIPIENT_NAMES = frozenset({
    *("recipient", "recipientid", "id", "customer", "customerid", "customernumber", "client", "clientid", "person"),
    *("klant", "klantid", "klantnummer", "klantnr", "ontvanger", "numeroclient", "noclient", "idclient", "destinataire"),
    *("kunde", "kundennummer", "kundennr", "empfanger"),
})  # fmt: skip

# What people call frequent variables, without blanks and accents; only guessed for a template that has the variable.
SYNONYMS: Mapping[str, str] = {
    **dict.fromkeys(("voornaam", "prenom", "vorname", "firstname", "givenname"), "first_name"),
    **dict.fromkeys(("bedrag", "montant", "betrag", "somme", "summe"), "amount"),
    **dict.fromkeys(
        ("geldigtot", "geldigtotenmet", "einddatum", "valablejusquau", "datedefin", "gultigbis", "enddatum"), "valid_until"
    ),
    **dict.fromkeys(("link", "url", "linkaanbod", "aanbodlink", "lien", "lienoffre", "angebotslink", "offerlink"), "offer_url"),
    **dict.fromkeys(("projet", "projekt"), "project"),
}


def fits(header: Sequence[str], variables: Collection[str]) -> bool:
    """Whether all columns of a header have the names that an audience for these variables has."""
    names = [COLUMNS.name_of(position, cell) for position, cell in enumerate(header)]
    while names and not names[-1]:
        names.pop()
    return "recipient" in names and len(set(names)) == len(names) and set(names) <= set(targets(variables))


def targets(variables: Collection[str]) -> list[str]:
    """What a column can be assigned to, besides being ignored."""
    return ["recipient", *(f"data.{name}" for name in variables)]


def guess(header: Sequence[str], variables: Collection[str]) -> list[str]:
    """An assignment by the names of the columns, each target once; `IGNORED` where no name is similar enough."""
    plain_names = {plain: f"data.{name}" for plain, name in SYNONYMS.items() if name in variables}
    plain_names |= {_plain(name): f"data.{name}" for name in variables}
    taken: set[str] = set()
    result = []
    for cell in header:
        plain = _plain(cell.removeprefix("data."))
        near = get_close_matches(plain, plain_names, 1, SIMILARITY_MIN) if plain else []
        found = "recipient" if plain in RECIPIENT_NAMES and plain not in plain_names else plain_names.get(near[0]) if near else None
        if found is None or found in taken:
            found = IGNORED
        taken.add(found)
        result.append(found)
    return result


def check_assignment(columns: Sequence[str], header: Sequence[str], variables: Collection[str]) -> None:
    """Raise BadInput for an assignment that does not fit the file or the templates."""
    allowed = {*targets(variables), IGNORED}
    errors = []
    if len(columns) != len(header):
        errors.append(InputError("columns", 0, "", "do not fit the file any more; look at it again"))
    for position, name in enumerate(columns):
        if name not in allowed:
            errors.append(InputError("columns", 0, str(position), "should be one of the targets that are offered"))
        elif name != IGNORED and name in columns[:position]:
            errors.append(InputError("columns", 0, str(position), f"{name.removeprefix('data.')} has another column already"))
    if "recipient" not in columns:
        errors.append(InputError("columns", 0, "recipient", "choose the column with the recipient's id"))
    if errors:
        raise BadInput(*errors)


def fingerprint(header: Sequence[str]) -> bytes:
    """A hash by which a header is recognised: a file without one would have personal data in its first line."""
    return hashlib.sha256(json.dumps([trim(cell) for cell in header]).encode("utf-8", "surrogatepass")).digest()


def unassigned(columns: Sequence[str], required: Mapping[str, bool]) -> list[str]:
    """The required variables without a column: they have to come from the recipients' profiles."""
    return [name for name, is_required in required.items() if is_required and f"data.{name}" not in columns]


def _plain(text: str) -> str:
    """A name without case, accents, blanks and punctuation."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return re.sub(r"[^a-z0-9]", "", decomposed)
