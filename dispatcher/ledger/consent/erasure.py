"""Erasure of one recipient: what is deleted, and what stays."""

from __future__ import annotations

from datetime import datetime

from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.errors import UnknownRecipient
from dispatcher.domain.message import Mode
from dispatcher.domain.preferences import OFFERS, Change
from dispatcher.domain.recipient import Source
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent import events, revoke_pending
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.consent.recipients import JOBS_OF_RECIPIENT
from dispatcher.ledger.consent.revoke_pending import OptOut
from dispatcher.ledger.message_key import same_job, same_message

EMPTY_JOBS = f"""
UPDATE jobs j SET data = '{{}}' FROM ({JOBS_OF_RECIPIENT}) mine
WHERE {same_job("j", "mine")} AND j.data <> '{{}}'
"""
# An unread text that may be an opt-out stays open without its text: as with suppressions, the number gets no advertising, also if
# others have it or it is imported again.
_CLEAR_INBOUND = """
UPDATE inbound_texts
SET words = NULL, closed_at = CASE WHEN NOT may_be_opt_out OR closed_at IS NOT NULL THEN coalesce(closed_at, %(now)s) END,
    closed_by = CASE WHEN NOT may_be_opt_out OR closed_at IS NOT NULL THEN coalesce(closed_by, 'erasure') END
WHERE recipients @> ARRAY[%(id)s::text] AND words IS NOT NULL
"""
_CLEAR_EVENTS = f"""
UPDATE provider_events e SET extra = NULL FROM messages m
WHERE m.recipient_id = %(id)s AND {same_message("e", "m")} AND e.extra IS NOT NULL
"""
_DELETE_SOFT_BOUNCES = """
DELETE FROM misses f USING recipients r WHERE r.id = %(id)s AND f.address_key IN (r.email_key, r.phone_key, r.whatsapp_key)
"""
_DELETE_CONVERSIONS = "DELETE FROM conversions WHERE recipient_id = %(id)s"
_DELETE_WHATSAPP_WINDOWS = """
DELETE FROM conversations w USING recipients r WHERE r.id = %(id)s AND w.address_key IN (r.phone_key, r.whatsapp_key)
"""
# The person's addresses, unless others have them too: what those got goes on counting until the reservations are deleted by age.
_CLEAR_RESERVATIONS = """
UPDATE cap_reservations s SET address_key = NULL, once_in = NULL
WHERE s.address_key IS NOT NULL AND (s.recipient_id = %(id)s OR s.address_key = ANY(ARRAY(
        SELECT unnest(ARRAY[r.email_key, r.phone_key, r.whatsapp_key]) FROM recipients r WHERE r.id = %(id)s)))
  AND NOT EXISTS (SELECT FROM recipients r WHERE r.email_key = s.address_key AND r.id <> %(id)s)
  AND NOT EXISTS (SELECT FROM recipients r WHERE r.phone_key = s.address_key AND r.id <> %(id)s)
  AND NOT EXISTS (SELECT FROM recipients r WHERE r.whatsapp_key = s.address_key AND r.id <> %(id)s)
"""
_ERASE = """
UPDATE recipients
SET timezone = NULL, birth_date = NULL, entities = '{}', has_current_account = false, email = NULL, phone = NULL,
    whatsapp = NULL, email_key = NULL, phone_key = NULL, whatsapp_key = NULL, devices = '[]', partner_id = NULL,
    purchased = '{}', profile = '{}', rests = '{}', erased_at = %(now)s, updated_at = %(now)s, version = version + 1
WHERE id = %(id)s
"""


_ERASE_PROSPECT = "SELECT erase_prospect(%(id)s, %(now)s)"


def erase(
    connection: Connection, secret: KeyRing, recipient_id: str, actor: str, now: datetime, *, only_prospect: bool = False
) -> bool:
    """Erase a person: addresses, profile, devices, birth date, variables of messages, inbound messages, and conversions.
    False where this was done before.

    These stay: decisions without content; the chain of consent events, to which the end of each offer type is added; the person
    kind and the language, so that decisions can still be explained; and suppressions, which never held an address.
    `only_prospect`: by retention; a worker may erase nobody else. Raises `UnknownRecipient`.
    """
    with connection.transaction():
        row = connection.execute("SELECT choices, erased_at FROM recipients WHERE id = %s FOR UPDATE", (recipient_id,)).fetchone()
        if row is None:
            raise UnknownRecipient(recipient_id)
        if row[1] is not None:
            return False
        revoke_pending.revoke_pending(
            connection, [OptOut(recipient_id, ReasonCode.ERASED, f"erased:{now.isoformat()}", service_too=True)], now
        )
        ended = [Change(subject, Mode.NONE) for subject in OFFERS if subject in row[0]]
        events.record(connection, secret, ConsentStatement(recipient_id, tuple(ended), now), Provenance(Source.ERASURE, actor), now)
        person = _ERASE_PROSPECT if only_prospect else _ERASE
        for statement in (
            _CLEAR_EVENTS,
            _CLEAR_RESERVATIONS,
            _DELETE_SOFT_BOUNCES,
            _DELETE_WHATSAPP_WINDOWS,
            _DELETE_CONVERSIONS,
            person,
        ):
            connection.execute(statement, {"id": recipient_id, "now": now})
        connection.execute(EMPTY_JOBS, {"id": recipient_id})
        connection.execute(_CLEAR_INBOUND, {"id": recipient_id, "now": now})
    return True
