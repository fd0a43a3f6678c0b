"""The choices of a person as plain data."""

from __future__ import annotations

from typing import Any

from dispatcher.consent.preferences import Preferences
from dispatcher.domain.message import OfferType
from dispatcher.domain.recipient import ChannelGroup
from dispatcher.web.serializers.times import moment


def preferences_view(preferences: Preferences) -> dict[str, Any]:
    """A person's choices with the names of the import file, and under `choices` the proof of each. A choice never made is null."""
    values = {subject: choice.value for subject, choice in preferences.choices.items()}
    return {
        "recipient": preferences.recipient_id,
        "version": preferences.version,
        "offers": {offer.value: values.get(f"offer:{offer}") for offer in OfferType},
        "channels": {group.value: _switch(values.get(f"channel:{group}")) for group in ChannelGroup},
        "object_marketing": values.get("objection:marketing") == "on",
        "object_profiling": values.get("objection:profiling") == "on",
        "choices": {
            subject: {
                "value": choice.value,
                "event": choice.event,
                "source": choice.source,
                "at": moment(choice.at),
                "dated": choice.dated,
                "contract_version": choice.contract_version or None,
            }
            for subject, choice in sorted(preferences.choices.items())
        },
    }


def _switch(value: str | None) -> bool | None:
    return None if value is None else value == "on"
