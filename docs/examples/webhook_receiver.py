"""Receives events by webhook, verifies each call, and prints each event once, as a line of JSON.

pip install standardwebhooks
WEBHOOK_SECRET=whsec_… python webhook_receiver.py 8080
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

done: set[str] = set()  # yours is a table: the id of an event, written in the transaction of your own work


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 when its work is done, and 401 to whoever does not know the secret."""

    def do_POST(self) -> None:
        """One call: one event, or an array of them."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            events = Webhook(os.environ["WEBHOOK_SECRET"]).verify(body, dict(self.headers))
        except WebhookVerificationError:
            self.answer(401)
            return
        for event in events if isinstance(events, list) else [events]:
            if event["id"] not in done:
                print(json.dumps(event), flush=True)  # noqa: T201  your own work comes here, before the answer
                done.add(event["id"])
        self.answer(204)

    def answer(self, status: int) -> None:
        """Answer without a body: nobody reads it."""
        self.send_response(status)
        self.end_headers()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
