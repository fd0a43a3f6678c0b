"""FCM's double keeps the API's contract, checked with the official client."""

from __future__ import annotations

import firebase_admin
import pytest
from firebase_admin import exceptions, messaging

from channels.sandbox import SandboxClient
from tests.support.sandbox_clients import (
    make_push,
)


def test_a_push_message_is_taken(sandbox: SandboxClient, firebase_app: firebase_admin.App) -> None:
    push = make_push("tok", notification=messaging.Notification("Title", "Body"), data={"message": "m-1"})
    first, second = messaging.send(push, app=firebase_app), messaging.send(push, app=firebase_app)
    assert first != second
    assert first.startswith("projects/bank/messages/")
    messaging.send(push, dry_run=True, app=firebase_app)
    assert [(line["address"], line["message_id"], line["receipt"]) for line in sandbox.log(provider="fcm")] == [
        ("tok", "m-1", first),
        ("tok", "m-1", second),
    ]


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ("unregistered-1", messaging.UnregisteredError),
        ("mismatch-1", messaging.SenderIdMismatchError),
        ("quota-1", messaging.QuotaExceededError),
        ("thirdparty-1", messaging.ThirdPartyAuthError),
        ("invalid-1", exceptions.InvalidArgumentError),
        ("badfield-1", exceptions.InvalidArgumentError),
        ("unavailable-1", exceptions.UnavailableError),
        ("internal-1", exceptions.InternalError),
        ("denied-1", exceptions.PermissionDeniedError),
        ("unauthenticated-1", exceptions.UnauthenticatedError),
    ],
)
def test_each_fcm_error_has_its_class(firebase_app: firebase_admin.App, token: str, error: type[Exception]) -> None:
    with pytest.raises(error) as refused:
        messaging.send(make_push(token, data={"a": "b"}), app=firebase_app)
    assert type(refused.value) is error


def test_invalid_token_and_invalid_field_differ(firebase_app: firebase_admin.App) -> None:
    details = []
    for message in (make_push("invalid"), make_push("badfield")):
        with pytest.raises(exceptions.InvalidArgumentError) as refused:
            messaging.send(message, app=firebase_app)
        error = refused.value.http_response.json()["error"]
        details.append([detail["@type"].rpartition(".")[2] for detail in error["details"]])
    assert details == [["FcmError", "BadRequest"], ["BadRequest"]]


def test_a_push_message_has_at_most_4096_bytes(firebase_app: firebase_admin.App) -> None:
    assert messaging.send(make_push("tok", data={"k": "é" * 2_047}), app=firebase_app)
    with pytest.raises(exceptions.InvalidArgumentError, match="too big"):
        messaging.send(make_push("tok", data={"kkk": "é" * 2_047}), app=firebase_app)
