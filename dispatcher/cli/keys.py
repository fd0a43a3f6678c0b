"""`dispatcher keys …`."""

from __future__ import annotations

from typing import Any

import typer

from dispatcher.cli.output import Json, err, out, plural, print_json, progress, rows
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.sealed_jobs import key_id, public_key
from dispatcher.maintenance import key_rotation
from dispatcher.maintenance.key_rotation import RotationStatus
from dispatcher.runtime import bootstrap

ALGORITHM = "HPKE (RFC 9180): base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305"

app = typer.Typer(
    help="Rotate the secret key, show how far that is, and print the public key for sealed jobs.", no_args_is_help=True
)


@app.command()
def rotate(as_json: Json = False) -> None:
    """Introduce the newest key of DISPATCHER_SECRET_KEY to the ledger, and re-key all addresses. Goes on where it was cut off."""
    cut_off = bootstrap.introduce_key()
    if cut_off:
        err.print(f"{plural(cut_off, 'connection')} of processes without the new key cut off: start these with the new key")
    services = bootstrap.services()
    with progress("re-keying", key_rotation.status(services).recipients) as (bar, task):
        key_rotation.rotate(services, lambda done: bar.update(task, completed=done))
    _print(key_rotation.status(services), as_json)


@app.command("status")
def show_status(as_json: Json = False) -> None:
    """Show the keys that the ledger was written with, and how many recipients are under the newest one."""
    _print(key_rotation.status(bootstrap.services()), as_json)


@app.command()
def public(as_json: Json = False) -> None:
    """Print the public key with which other systems seal Celery jobs. After a rotation they should use the new one."""
    secret = KeyRing.parse(bootstrap.settings().secret_key).newest
    key = public_key(secret)
    if as_json:
        print_json({"id": key_id(key), "public_key": key, "algorithm": ALGORITHM})
    else:
        out.print(key, markup=False)


def _print(status: RotationStatus, as_json: bool) -> None:
    newest = status.keys[0]
    document: dict[str, Any] = {
        "finished": status.is_finished,
        "rekeyed": newest.rekeyed,
        "recipients": status.recipients,
        "suppressions_of_unknown_addresses": status.unknown_suppressions,
        "keys": [{"key": key.name, "introduced_at": key.introduced_at.isoformat(), "writes": key is newest} for key in status.keys],
    }
    if as_json:
        print_json(document)
        return
    lines = [(key.name, key.introduced_at.isoformat(), "writes" if key is newest else "reads") for key in status.keys]
    rows("", ("key", "introduced", "use"), lines)
    if not status.is_finished:
        done = f"{newest.rekeyed:,} of {status.recipients:,} recipients re-keyed"
        out.print(f"{done}: `dispatcher keys rotate` goes on", markup=False)
    elif len(status.keys) > 1:
        out.print("all recipients are under the newest key; the former keys are still needed for", markup=False)
        out.print("  old links, the chains of consent events, and", markup=False)
        out.print(f"  {plural(status.unknown_suppressions, 'suppression')} of addresses that nobody has any more", markup=False)
