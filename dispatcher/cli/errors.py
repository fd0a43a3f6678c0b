"""Errors as messages and exit codes: 1 refused or failed, 2 bad usage or bad input."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from dispatcher.cli import open_acts
from dispatcher.cli.output import BAD_INPUT, REFUSED, CommandFailure, err, escape, print_json_line
from dispatcher.content import InvalidTemplates
from dispatcher.devserver.supervisor import ProcessError
from dispatcher.domain.errors import (
    EndpointConflict,
    LedgerUnavailable,
    NotAllowed,
    PolicyNotInForce,
    ScheduleConflict,
    SignInNeeded,
    UnknownEndpoint,
    UnknownRecipient,
    UnknownSchedule,
)
from dispatcher.domain.message_id import BadMessageId
from dispatcher.domain.preferences import BadChoice
from dispatcher.embedded import EngineError
from dispatcher.identity.users import SIGN_IN
from dispatcher.intake.errors import BadInput, InputError, as_data
from dispatcher.policy import InvalidPolicy
from dispatcher.runtime.settings import InvalidSettings


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code. A traceback means an error in our code, never in the user's input."""
    code = None
    try:
        code = _run(app, arguments)
    finally:
        open_acts.conclude_all(code)
    return code


def _run(app: typer.Typer, arguments: Sequence[str]) -> int:
    as_json = "--json" in arguments
    if fault := _removed_option(arguments):
        return _report(as_json, BAD_INPUT, [fault])
    try:
        app(list(arguments), standalone_mode=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else REFUSED
    except BadInput as error:
        return _report(as_json, BAD_INPUT, [str(fault) for fault in error.faults], error.faults)
    except (InvalidSettings, InvalidTemplates, InvalidPolicy) as error:
        return _report(as_json, BAD_INPUT, [str(fault) for fault in error.faults])
    except CommandFailure as error:
        return _report(as_json, error.code, [str(error)])
    except (BadChoice, BadMessageId) as error:
        return _report(as_json, BAD_INPUT, [str(error)])
    except (UnknownRecipient, UnknownEndpoint, EndpointConflict, UnknownSchedule, ScheduleConflict) as error:
        return _report(as_json, REFUSED, [str(error)])
    except (NotAllowed, SignInNeeded, EngineError, ProcessError, LedgerUnavailable, PolicyNotInForce) as error:
        return _report(as_json, REFUSED, [str(error)])
    except KeyboardInterrupt:
        return 130
    return 0


# `preferences set` says for whom a choice is recorded, and results are split by something.
_OTHER_MEANINGS = {("--actor", "preferences", "set"), ("--by", "campaign", "results")}


def _removed_option(arguments: Sequence[str]) -> str | None:
    """What to do instead of naming oneself, as in former versions."""
    named = [each for each in (text.partition("=")[0] for text in arguments) if each in ("--actor", "--by")]
    if not named or (named[0], *arguments[:2]) in _OTHER_MEANINGS:
        return None
    return f"{named[0]} is gone: a command acts as who is signed in; {SIGN_IN}"


def _report(as_json: bool, code: int, lines: Sequence[str], faults: Sequence[InputError] = ()) -> int:
    if as_json:
        print_json_line({"error": "\n".join(lines), "faults": as_data(faults)})
    for line in lines:
        err.print(f"[red]{escape(line)}[/red]")
    return code
