"""The conformance suite for providers, for the tests of this program and of packages with plugins. It needs pytest and hypothesis.

`ProviderConformance` holds the tests, `ProviderCase` describes an adapter; `http_case` makes one for an HTTP API.
"""

import pytest

pytest.register_assert_rewrite("channels.testing.conformance")  # before it is imported: else a failure shows no values

from channels.testing.cases import (  # noqa: E402
    EMAIL,
    NOT_TEXT,
    PUSH,
    SECRET_TEXT,
    SMS,
    WHATSAPP,
    ProviderAnswers,
    ProviderCase,
    Scenario,
    Situation,
    as_json,
    http_case,
    http_scenario,
    mailbox,
    phone,
    token,
)
from channels.testing.conformance import ProviderConformance  # noqa: E402

__all__ = [
    "EMAIL",
    "NOT_TEXT",
    "PUSH",
    "SECRET_TEXT",
    "SMS",
    "WHATSAPP",
    "ProviderAnswers",
    "ProviderCase",
    "ProviderConformance",
    "Scenario",
    "Situation",
    "as_json",
    "http_case",
    "http_scenario",
    "mailbox",
    "phone",
    "token",
]
