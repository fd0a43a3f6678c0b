"""Read the tables of entities and of lawful bases."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from channels.base import Channel
from dispatcher.domain.message import Mode, OfferType
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.policy.data import SERVICE, BasisGrant, CampaignSender, Entity, Row
from dispatcher.policy.section import Section

OFFERS = tuple(offer.value for offer in OfferType)
CHANNELS = tuple(channel.value for channel in Channel)
CHOICES = (Mode.TAILORED.value, Mode.STANDARD.value)

# The bases that are possible in each place: a contract only for a customer who accepted it, the soft opt-in only for own offers.
BASES: Mapping[tuple[str, str], tuple[str, ...]] = {
    **{(offer, Mode.TAILORED.value): ("contract", "consent") for offer in OFFERS},
    **{(offer, Mode.STANDARD.value): ("legitimate_interest", "consent") for offer in OFFERS},
    (OfferType.OWN.value, Mode.STANDARD.value): ("legitimate_interest", "soft_opt_in", "consent"),
    (SERVICE, Mode.STANDARD.value): ("service",),
}

NUMBER_OR_SERVICE = r"\+[1-9][0-9]{6,14}|MG[0-9a-fA-F]{32}"
SENDERS = {
    "sms": re.compile(NUMBER_OR_SERVICE + "|(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}"),
    "whatsapp": re.compile(NUMBER_OR_SERVICE),
}
SENDER_EXPECTED = {
    "sms": "a number such as +32470000000, a messaging service, or a name of at most 11 letters, digits and spaces",
    "whatsapp": "a number such as +32470000000, or a messaging service",
}

MAILBOX = re.compile(r"[!#-'*+/-9=?A-Z^-~.-]{1,64}@[a-z0-9-]+(\.[a-z0-9-]+)+")
SENDER_ID = re.compile(r"[a-z][a-z0-9-]{0,29}")
_HTTPS = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/[!#-;=?-Z_a-z~]*)?")
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")

Tables = dict[str, dict[str, Row]]  # offer type or "service" -> choice -> row


def read_entities(table: Section) -> dict[str, Entity]:
    """The companies in whose name messages are sent."""
    entities = {}
    with table:
        for name in table.each():
            with table.section(name) as entity:
                entity.section("basis", required=False)  # read with the tables that it changes
                entities[name] = Entity(
                    id=name,
                    names=entity.section("names").languages(),
                    sender_name=entity.text("sender_name"),
                    sender_address=entity.text("sender_address"),
                    senders=_senders(entity.section("senders", required=False)),
                    controllers=entity.strings("controllers"),
                    processor=entity.text("processor"),
                    contact=entity.text("contact"),
                    hosts=frozenset(_hosts(entity, "hosts", entity.strings("hosts", default=()))),
                    partners=_partners(entity.section("partners", required=False)),
                    campaign_senders=_campaign_senders(entity.section("campaign_senders", required=False)),
                    reply_to=tuple(_mailboxes(entity, "reply_to", entity.strings("reply_to", default=()))),
                    privacy=_privacy(entity),
                )
                if "@" not in entities[name].sender_address:
                    entity.fault("sender_address", "an e-mail address", entities[name].sender_address)
                if not entities[name].controllers:
                    entity.fault("controllers", "at least one company that answers for the personal data")
        if not entities:
            table.fault("", "at least one entity")
    return entities


def _privacy(entity: Section) -> Mapping[Language, str]:
    """The links to the privacy statement: one per language, or none."""
    if "privacy" not in entity.data:
        return {}
    with entity.section("privacy") as table:
        links = {language: table.text(language) for language in LANGUAGES}
        for language, link in links.items():
            if link and not _HTTPS.fullmatch(link):
                table.fault(language, "an address such as https://www.bank.example/privacy", link)
    return links


def _hosts(table: Section, key: str, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if _HOST.fullmatch(name):
            yield name
        else:
            table.fault(key, "a host such as www.bank.example, in small letters, without https://", name)


def _partners(table: Section) -> dict[str, frozenset[str]]:
    with table:
        return {host: frozenset(table.strings(host)) for host in _hosts(table, "", table.each())}


def _campaign_senders(table: Section) -> dict[str, CampaignSender]:
    """The senders that a campaign may choose: each with a name, an address, or senders of text messages."""
    senders = {}
    with table:
        for name in table.each():
            with table.section(name) as sender:
                senders[name] = CampaignSender(
                    name=sender.text("name", default=""),
                    address=next(_mailboxes(sender, "address", filter(None, [sender.text("address", default="")])), ""),
                    senders=_senders(sender.section("senders", required=False)),
                )
                if not SENDER_ID.fullmatch(name):
                    table.fault(name, "a name of at most 30 small letters, digits and hyphens, such as invest")
                if not any((senders[name].name, senders[name].address, senders[name].senders)):
                    sender.fault("", "at least one of name, address and senders")
    return senders


def _mailboxes(table: Section, key: str, addresses: Iterable[str]) -> Iterator[str]:
    for address in addresses:
        if MAILBOX.fullmatch(address):
            yield address
        else:
            table.fault(key, "an e-mail address such as advice@bank.example", address)


def _senders(table: Section) -> dict[Channel, str]:
    senders = {}
    with table:
        for channel in table.each(SENDERS):
            senders[Channel(channel)] = table.text(channel)
            if not SENDERS[channel].fullmatch(senders[Channel(channel)]):
                table.fault(channel, SENDER_EXPECTED[channel], senders[Channel(channel)])
    return senders


def read_basis(top: Section, entities: Mapping[str, Entity]) -> dict[str, Tables]:
    """The bases of each entity, by offer type and choice: the common tables, with the entity's own cells in their place."""
    common = _tables(top.section("basis"))
    basis = {}
    for name in entities:
        own = top.section("entities").section(name).section("basis", required=False)
        basis[name] = _merge(common, _tables(own))
    return basis


def _tables(table: Section) -> Tables:
    tables: Tables = {}
    with table:
        for offer in table.each(OFFERS):
            with table.section(offer) as choices:
                tables[offer] = {choice: _row(choices.section(choice), BASES[offer, choice]) for choice in choices.each(CHOICES)}
        for service in table.each((SERVICE,)):
            standard = Mode.STANDARD.value
            tables[service] = {standard: _row(table.section(service), BASES[service, standard])}
    return tables


def _row(table: Section, bases: tuple[str, ...]) -> Row:
    with table:
        return {
            Channel(channel): tuple(BasisGrant(basis, f"policy:{table.place(channel)}") for basis in table.strings(channel, bases))
            for channel in table.each(CHANNELS)
        }


def _merge(common: Tables, own: Tables) -> Tables:
    merged: Tables = {}
    for offer in common.keys() | own.keys():
        common_row, own_row = common.get(offer, {}), own.get(offer, {})
        choices = common_row.keys() | own_row.keys()
        merged[offer] = {choice: {**common_row.get(choice, {}), **own_row.get(choice, {})} for choice in choices}
    return merged
