"""Message ids have one spelling; tokens cannot be read, altered, or used for another purpose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, BadToken, message_token, read_message_token, seal, unseal
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message_id import CHUNK_MAX, LEG_MAX, ROW_MAX, BadMessageId, MessageId

SECRET = KeyRing.of(b"a secret of the tests")

refs = st.builds(
    MessageId,
    st.builds(lambda year, month: year * 100 + month, st.integers(2000, 2999), st.integers(1, 12)),
    st.integers(1, CHUNK_MAX),
    st.integers(0, ROW_MAX),
    st.integers(0, LEG_MAX),
)


@given(refs)
def test_a_message_id_round_trips_as_text_and_token(ref: MessageId) -> None:
    token = message_token(SECRET, UNSUBSCRIBE, str(ref))
    assert MessageId.parse(str(ref)) == ref
    assert read_message_token(SECRET, UNSUBSCRIBE, token) == str(ref)
    assert len(token) <= 48
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert str(ref.period) not in token


@pytest.mark.parametrize(
    "text",
    [
        *("", "202611-1-0", "202611-1-0-0-0", "202613-1-0-0", "202600-1-0-0", "202611-0-0-0", "202611-01-0-0"),
        *("202611-1-00-0", "202611-1-0-0 ", "202611-1-0-0\n", "２02611-1-0-0", "202611-1--1-0", "199912-1-0-0"),
        *("202611-9223372036854775808-0-0", "202611-1-2147483648-0", "202611-1-0-32768"),
    ],
)
def test_a_message_has_exactly_one_spelling(text: str) -> None:
    with pytest.raises(BadMessageId):
        MessageId.parse(text)


@given(st.binary(min_size=1, max_size=64), st.data())
def test_an_altered_token_is_refused(payload: bytes, data: st.DataObject) -> None:
    token = seal(SECRET, "a", payload)
    assert unseal(SECRET, "a", token) == payload
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(min_codepoint=1, max_codepoint=0x2FF))
    altered = token[:place] + other + token[place + 1 :]
    if altered != token:
        with pytest.raises(BadToken):
            unseal(SECRET, "a", altered)


@given(st.text(max_size=60))
def test_invented_tokens_are_refused(token: str) -> None:
    with pytest.raises(BadToken):
        read_message_token(SECRET, UNSUBSCRIBE, token)


def test_a_token_is_bound_to_its_secret_and_purpose() -> None:
    token = message_token(SECRET, UNSUBSCRIBE, "202611-123-17-0")
    with pytest.raises(BadToken):
        read_message_token(KeyRing.of(b"another secret"), UNSUBSCRIBE, token)
    with pytest.raises(BadToken):
        read_message_token(SECRET, PREFERENCES, token)
    with pytest.raises(BadToken):
        read_message_token(SECRET, UNSUBSCRIBE, seal(SECRET, UNSUBSCRIBE, b"short"))
    with pytest.raises(ValueError, match="empty"):
        seal(KeyRing.of(b""), "message", b"x")


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_token_has_one_spelling(cut: int) -> None:
    token = seal(SECRET, "a", b"x" * (15 + cut))  # leaves unused bits in the last character
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for other in (token[:-1] + letter for letter in alphabet if letter != token[-1]):
        with pytest.raises(BadToken):
            unseal(SECRET, "a", other)
    for longer in (token + "=", token + "==", token + "A", token + "\n"):
        with pytest.raises(BadToken):
            unseal(SECRET, "a", longer)
