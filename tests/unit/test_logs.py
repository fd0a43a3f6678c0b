"""What the logs say of errors."""

from __future__ import annotations

from redis.exceptions import ConnectionError as BrokerConnectionError

from dispatcher.runtime.logs import shorten_lost_connection


def logged(error: BaseException) -> dict[str, object]:
    return dict(
        shorten_lost_connection(None, "error", {"event": "unrecoverable", "exc_info": (type(error), error, error.__traceback__)})
    )


def failed(cause: BaseException) -> BaseException:
    """An error that followed another, as kombu's do."""
    try:
        try:
            raise cause
        except type(cause):
            None.hostname  # type: ignore[attr-defined]  # noqa: B018
    except AttributeError as error:
        return error
    raise AssertionError


def test_a_lost_connection_is_one_line() -> None:
    for cause in (BrokerConnectionError("closed"), ConnectionResetError()):
        line = logged(failed(cause))
        assert line == {
            "event": "unrecoverable",
            "error": "AttributeError",
            "connection_lost": type(cause).__name__,
            "place": line["place"],
        }
        assert str(line["place"]).startswith("test_logs.py:")


def test_any_other_error_keeps_its_traceback() -> None:
    assert "exc_info" in logged(failed(ValueError("a bug")))
