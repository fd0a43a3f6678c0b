"""`python -m channels.sandbox`: run a sandbox in its own process."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
from dataclasses import replace
from pathlib import Path

from channels.sandbox.arrivals import DamagedLogError
from channels.sandbox.control import set_profile
from channels.sandbox.keys import write_certificate
from channels.sandbox.profiles import PROFILES
from channels.sandbox.server import announce, announce_json, serve
from channels.sandbox.state import SandboxState, make_state


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and serve. Returns 2 if the port or the state folder cannot be used."""
    options = _parser().parse_args(arguments)

    def make() -> SandboxState:
        state = make_state(options.state, seed=options.seed)
        endpoints = f"{options.dispatcher.rstrip('/')}/webhooks" if options.dispatcher else ""
        state.events.settings = replace(
            state.events.settings,
            sendgrid_url=options.sendgrid_webhook or (endpoints and f"{endpoints}/sendgrid"),
            twilio_inbound_url=options.twilio_inbound or (endpoints and f"{endpoints}/twilio/inbound"),
            telnyx_inbound_url=options.telnyx_inbound or (endpoints and f"{endpoints}/telnyx"),
        )
        set_profile(state, options.profile)
        return state

    try:
        serve(
            make,
            options.host,
            options.port,
            ssl_context=_tls(options.tls) if options.tls else None,
            ready=_announce_ready_as_json if options.json else announce,
        )
    except (OSError, DamagedLogError) as fault:
        reason = os.strerror(fault.errno) if isinstance(fault, OSError) and fault.errno else str(fault)
        text = f"the sandbox cannot start on {options.host}:{options.port}: {reason}"
        sys.stderr.write(f"{text}\n")
        if options.json:
            announce_json("failed", error=text)
        return 2
    if options.json:
        announce_json("stopped")
    return 0


def _announce_ready_as_json(url: str) -> None:
    announce_json("started", url=url)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m channels.sandbox", description="Local doubles of the providers' APIs.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=8090, help="0 chooses a free one")
    parser.add_argument("--state", type=Path, help="folder that keeps arrivals and keys over restarts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers of fault rules")
    parser.add_argument("--profile", default="calm", choices=list(PROFILES), help="named set of fault rules")
    parser.add_argument("--sendgrid-webhook", default="", metavar="URL", help="where mail events are posted")
    parser.add_argument("--twilio-inbound", default="", metavar="URL", help="where replies to Twilio's numbers are posted")
    parser.add_argument("--telnyx-inbound", default="", metavar="URL", help="where replies to Telnyx's numbers are posted")
    parser.add_argument("--dispatcher", default="", metavar="URL", help="post all of these to the dispatcher at this URL")
    parser.add_argument("--json", action="store_true", help="print events as JSON, one per line")
    parser.add_argument("--tls", type=Path, metavar="FOLDER", help="serve HTTPS; authority.pem for clients is written there")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port")
    return int(text)


def _tls(folder: Path) -> ssl.SSLContext:
    _, certificate, key = write_certificate(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


if __name__ == "__main__":
    sys.exit(main())
