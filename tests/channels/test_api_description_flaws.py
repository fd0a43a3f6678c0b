"""Known errors of the providers' own API descriptions, and what this program does about each of them.

A test checks that each error is still there, so that the table shrinks when a provider fixes one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.api_descriptions import (
    MAIL,
    PUSHES,
    TEXTS,
    create_operation,
    load_description,
    mail_fields,
    media_type,
    message_form,
)


@dataclass(frozen=True, slots=True)
class Flaw:
    """One error of a description. `is_present` tells whether it is still there; `handling` is what this program does about it."""

    where: str
    what: str
    handling: str
    is_present: Callable[[], bool]


FLAWS = (
    Flaw(
        "SendGrid mail/send",
        "custom_args of the whole mail is a string",
        "ours stand in the personalization, where they are an object",
        lambda: mail_fields()["custom_args"]["type"] == "string",
    ),
    Flaw(
        "SendGrid mail/send",
        "sections are left out",
        "we send none",
        lambda: "sections" not in mail_fields(),
    ),
    Flaw(
        "SendGrid mail/send",
        "headers may hold anything, though twelve names are refused and values are strings",
        "channels.checks refuses them first",
        lambda: "additionalProperties" not in mail_fields()["headers"],
    ),
    Flaw(
        "SendGrid mail/send",
        "the 202 has no header, though X-Message-Id is the mail's name",
        "no name, no receipt: such an answer is Uncertain",
        lambda: "headers" not in load_description(MAIL)["paths"]["/v3/mail/send"]["post"]["responses"]["202"],
    ),
    Flaw(
        "SendGrid mail/send",
        "415 and 429 are left out",
        "read from the errors page: tests/channels/test_reactions.py",
        lambda: {"415", "429"}.isdisjoint(load_description(MAIL)["paths"]["/v3/mail/send"]["post"]["responses"]),
    ),
    Flaw(
        "SendGrid mail/send",
        "the examples of errors write the word null where the field is null",
        "only names of our own fields are taken over as hints",
        lambda: (
            media_type(load_description(MAIL)["components"]["responses"]["PostMailSend400"])["examples"]["Unauthorized request"][
                "value"
            ]["errors"][0]["field"]
            == "null"
        ),
    ),
    Flaw(
        "SendGrid",
        "nullable, a word of OpenAPI 3.0, in a 3.1 document",
        "descriptions.closed reads it as a type",
        lambda: load_description(MAIL)["components"]["schemas"]["ErrorResponse"]["properties"]["errors"]["items"]["properties"][
            "field"
        ]["nullable"],
    ),
    Flaw(
        "Twilio Messages",
        "To and From are phone-number, though alphanumeric senders and whatsapp: addresses are right",
        "the format's check knows them",
        lambda: message_form()["schema"]["properties"]["From"]["format"] == "phone-number",
    ),
    Flaw(
        "Twilio Messages",
        "array fields have no encoding",
        "we send none of them",
        lambda: "encoding" not in message_form(),
    ),
    Flaw(
        "Twilio Messages",
        "ValidityPeriod has no bounds, its text says 1 to 36000",
        "the adapter keeps to the text",
        lambda: "maximum" not in message_form()["schema"]["properties"]["ValidityPeriod"],
    ),
    Flaw(
        "Twilio Messages",
        "the first example sends Tags, which the schema lacks",
        "we send none",
        lambda: "Tags" in message_form()["examples"]["create"]["value"] and "Tags" not in message_form()["schema"]["properties"],
    ),
    Flaw(
        "Twilio Messages",
        "no error answer is described",
        "read from the error dictionary: tests/channels/test_reactions.py",
        lambda: set(create_operation()["responses"]) == {"201"},
    ),
    Flaw(
        "Twilio Messages",
        "the status partially_delivered is listed but not explained",
        "an UNKNOWN event, shown to a person",
        lambda: "partially_delivered" not in load_description(TEXTS)["components"]["schemas"]["message_enum_status"]["description"],
    ),
    Flaw(
        "FCM",
        "names are given in camelCase only, though snake_case is read as well and Google's own SDK sends it",
        "compared after a change of case",
        lambda: "fcm_options" not in load_description(PUSHES)["schemas"]["WebpushConfig"]["properties"],
    ),
    Flaw(
        "FCM",
        "no error answer is described",
        "read from the ErrorCode page: tests/channels/test_reactions.py",
        lambda: not any("Error" in name for name in load_description(PUSHES)["schemas"]),
    ),
    Flaw(
        "FCM",
        "the text on priority says normal and high, though the values listed are NORMAL and HIGH",
        "capitals leave",
        lambda: (
            load_description(PUSHES)["schemas"]["AndroidConfig"]["properties"]["priority"]["enum"] == ["NORMAL", "HIGH"]
            and '"normal"' in load_description(PUSHES)["schemas"]["AndroidConfig"]["properties"]["priority"]["description"]
        ),
    ),
    Flaw(
        "FCM",
        "the sizes (4,096 bytes, 28 days) are in prose only or missing",
        "the adapter enforces them, and counts bytes as measurements show: tests/channels/test_fcm.py",
        lambda: "maximum" not in load_description(PUSHES)["schemas"]["AndroidConfig"]["properties"]["ttl"],
    ),
)


@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: f"{flaw.where}: {flaw.what}")
def test_each_known_flaw_is_still_there(flaw: Flaw) -> None:
    assert flaw.is_present(), f"fixed by the provider; remove it from the list (it was handled like this: {flaw.handling})"
