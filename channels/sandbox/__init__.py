"""A local server that speaks the used parts of SendGrid's, Twilio's and Firebase's APIs, so that their own clients
can't tell.

For anyone who develops against these providers, and the sink of our demo and benchmark. `running()` starts one beside
a test, `serve()` one in a process of its own (`python -m channels.sandbox --port P`), and `Sandbox(url)` speaks to
either.

==========  ===========================================================================================================
module      what it holds
==========  ===========================================================================================================
http        the server's HTTP/1.1, made for speed
app         which request goes where; fault rules strike here
sendgrid    mail/send and its rules (`sendgrid_rules`)
twilio      Messages: sending, its rules (`twilio_rules`), asking afterwards (`twilio_reads`)
fcm         messages:send, and the OAuth token endpoint
arrivals    the log of everything that arrived
faults      rules for what goes wrong
events      news back to webhooks, signed; `posting` carries them
messages    what was kept, made readable; `inbox` shows it, `control` gives it as JSON
keys        signing keys, throw-away service accounts, TLS certificates
==========  ===========================================================================================================
"""

from channels.sandbox.client import SandboxClient
from channels.sandbox.keys import write_certificate, write_service_account
from channels.sandbox.server import running, serve

__all__ = ["SandboxClient", "running", "serve", "write_certificate", "write_service_account"]
