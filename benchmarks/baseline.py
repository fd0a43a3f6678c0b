"""The baseline: what a good team writes in a day.

One Celery task per message, the official SDKs, one database connection and one warm client per process. Each task reads the
contact, checks its permission, renders, records the message, sends it, and records the answer: one SELECT and two commits. It
uses the same engines, template, sink and machine as this program, and Celery's default settings.

SendGrid's SDK opens a connection for each mail, and for each connection it loads all certificate authorities that the machine
trusts: with the public ones, about 16 ms. `--one-authority` measures without this cost.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import firebase_admin
import psycopg
from celery import Celery
from firebase_admin import credentials, messaging
from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import Content, Header, Mail, To
from twilio.rest import Client

from channels.base import Channel, Email, Push, Sms, WhatsApp
from dispatcher import content
from dispatcher.content import Catalog, MessageLinks, MessageSender, RenderRequest
from dispatcher.domain.message import Mode

TEMPLATE = "loan_offer"
ADDRESS = "https://dispatcher.example"
SCHEMA = """
    CREATE SCHEMA IF NOT EXISTS baseline;
    CREATE TABLE IF NOT EXISTS baseline.contacts (
        id text PRIMARY KEY, language text NOT NULL, first_name text, email text, phone text, device text,
        allowed boolean NOT NULL);
    CREATE TABLE IF NOT EXISTS baseline.messages (
        campaign text NOT NULL, contact text NOT NULL, channel text NOT NULL, status text NOT NULL, provider_id text,
        created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (campaign, contact));
    INSERT INTO baseline.contacts
    SELECT id, language, profile->'identity'->>'first_name', email, phone, devices->0->>'token', true FROM recipients
    ON CONFLICT DO NOTHING;
"""

app = Celery("baseline", broker=os.environ.get("DISPATCHER_BROKER_URL"))
app.conf.update(task_ignore_result=True, task_default_queue="baseline", worker_hijack_root_logger=False)

_process = threading.local()


class BaselineClients:
    """The resources of a process: the database connection, the templates and the providers' SDK clients."""

    def __init__(self) -> None:
        sink = os.environ["SENDGRID_BASE_URL"]
        self.database = psycopg.connect(os.environ["DISPATCHER_DATABASE_URL"])
        self.catalog: Catalog = content.load(Path("templates"))
        self.sendgrid = SendGridAPIClient("SG.sink", host=sink)
        self.twilio = Client(os.environ["TWILIO_ACCOUNT_SID"], os.environ["TWILIO_AUTH_TOKEN"])
        self.twilio.api.base_url = sink
        messaging._MessagingService.FCM_URL = f"{sink}/v1/projects/{{0}}/messages:send"  # the SDK has no setting for it
        firebase_admin.initialize_app(credentials.Certificate(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]))


def clients() -> BaselineClients:
    """The clients of this process, created at first use."""
    if not hasattr(_process, "clients"):
        _process.clients = BaselineClients()
    existing: BaselineClients = _process.clients
    return existing


@app.task(name="baseline.send")  # type: ignore[untyped-decorator]
def send(campaign: str, contact: str, channel: str, data: dict[str, Any]) -> None:
    """Send one message: from the contact's row to the provider's receipt."""
    process = clients()
    row = process.database.execute(
        "SELECT language, first_name, email, phone, device FROM baseline.contacts WHERE id = %s AND allowed", (contact,)
    ).fetchone()
    if row is None:
        return
    language, first_name, email, phone, device = row
    request = _render_request(Channel(channel), language, {**data, "first_name": first_name})
    template = process.catalog[TEMPLATE]
    message = template.compose(request, template.context(request))
    process.database.execute(
        "INSERT INTO baseline.messages (campaign, contact, channel, status) VALUES (%s, %s, %s, 'sending')",
        (campaign, contact, channel),
    )
    process.database.commit()
    receipt = _send_message(process, message, email, phone, device)
    process.database.execute(
        "UPDATE baseline.messages SET status = 'sent', provider_id = %s, updated_at = now() WHERE campaign = %s AND contact = %s",
        (receipt, campaign, contact),
    )
    process.database.commit()


def _render_request(channel: Channel, language: Any, data: dict[str, Any]) -> RenderRequest:
    return RenderRequest(
        channel=channel,
        language=language,
        mode=Mode.TAILORED,
        categories=frozenset({"identity", "transactions", "product"}),
        data=data,
        sender=MessageSender("KBC Bank", "news@mail.example"),
        links=MessageLinks(f"{ADDRESS}/u/{data['first_name']}", f"{ADDRESS}/p/{data['first_name']}"),
    )


def _send_message(process: BaselineClients, message: object, email: str, phone: str, device: str) -> str:
    if isinstance(message, Email):
        mail = Mail((message.sender_address, message.sender_name), To(email), message.subject)
        mail.add_content(Content("text/plain", message.text))
        mail.add_content(Content("text/html", message.html))
        for name, value in message.headers:
            mail.add_header(Header(name, value))
        return str(process.sendgrid.send(mail).headers["X-Message-Id"])
    if isinstance(message, Push):
        notification = messaging.Notification(message.title, message.body)
        return str(messaging.send(messaging.Message({"link": message.link}, notification, token=device)))
    if isinstance(message, Sms):
        return str(process.twilio.messages.create(to=phone, from_=os.environ["TWILIO_SMS_SENDER"], body=message.text).sid)
    assert isinstance(message, WhatsApp)
    to, sender = f"whatsapp:{phone}", f"whatsapp:{os.environ['TWILIO_WHATSAPP_SENDER']}"
    sent = process.twilio.messages.create(
        to=to, from_=sender, content_sid=message.content_sid, content_variables=json.dumps(dict(message.variables))
    )
    return str(sent.sid)
