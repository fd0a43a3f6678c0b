"""Reads the feed of events, checks that none is missing or changed, and prints each as a line of JSON. Python's own library only.

    DISPATCHER_KEY=dsp_… python feed_client.py https://messages.bank.example cursor.json [OLDEST]

The file keeps the cursor and the hash of the last event: the next run continues there, and notices if the past was changed. Events
that retention deleted before they were read are lost (410): the program ends and says so. Bring your data up to date in another
way, and go on with OLDEST, the number in its message.
"""

import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

START: dict[str, Any] = {"after": 0, "hash": None}


def read_page(url: str, after: int) -> dict[str, Any]:
    """The next page; the server waits up to 30 s where there is no event yet."""
    request = urllib.request.Request(f"{url}/v1/events?after={after}&wait=30")  # noqa: S310
    request.add_header("Authorization", f"Bearer {os.environ['DISPATCHER_KEY']}")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            page: dict[str, Any] = json.load(response)
            return page
    except urllib.error.HTTPError as error:
        if error.code == 410:
            sys.exit(f"events are missing: {json.load(error)['detail']}")
        raise


def check(page: dict[str, Any], after: int, hash_before: str | None) -> None:
    """Ends the program where an event is missing or changed."""
    digest = bytes.fromhex(page["previous_hash"])
    if hash_before not in (None, page["previous_hash"]):
        sys.exit(f"event {after} is not the one that was read before")
    for number, event in enumerate(page["events"], start=after + 1):
        if int(event["sequence"]) != number:
            sys.exit(f"event {number} is missing")
        line = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(digest + line.encode()).digest()
    if digest.hex() != page["hash"]:
        sys.exit(f"an event after {after} was changed")


def main(url: str, file: Path, oldest: int | None = None) -> None:
    """Read until there is nothing new; with `oldest`, from this event on."""
    cursor = json.loads(file.read_text()) if file.exists() else START
    cursor = cursor if oldest is None else {"after": oldest - 1, "hash": None}
    while True:
        page = read_page(url, cursor["after"])
        check(page, cursor["after"], cursor["hash"])
        for event in page["events"]:
            print(json.dumps(event, ensure_ascii=False))  # noqa: T201  your own work comes here, before the cursor is written
        cursor = {"after": page["next"], "hash": page["hash"]}
        file.write_text(json.dumps(cursor))
        if not page["more"]:
            break


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), Path(sys.argv[2]), *map(int, sys.argv[3:]))
