"""A local server with doubles of SendGrid's, Twilio's, Telnyx's and Firebase's APIs. The official clients work with it.

Used for development, and by the demo, tests and benchmark. `running()` starts one in a thread of the test process, `serve()`
runs one in its own process (`python -m channels.sandbox --port P`), and `SandboxClient(url)` controls either.

==========  ===========================================================================================================
module      contents
==========  ===========================================================================================================
server      starts and stops the sandbox; `http` is its fast HTTP/1.1
app         routes requests and applies fault rules
doubles     finds the doubles: one `DOUBLE` per provider
sendgrid    mail/send, and its checks (`sendgrid_rules`)
twilio      Messages: sending, its checks (`twilio_rules`), queries (`twilio_reads`); `twilio_double` joins them
contents    WhatsApp templates and their status; `twilio_contents` is Twilio's Content API
telnyx      Messages (v2)
fcm         messages:send, and the OAuth token endpoint
state       everything that a running sandbox stores
arrivals    the log of all messages that arrived
faults      fault rules; `profiles` are named sets of them
events      signed webhook calls; `posting` sends them
messages    stored requests as readable messages; `inbox` shows them as pages, `control` as JSON
keys        signing keys, service accounts, TLS certificates
==========  ===========================================================================================================
"""

from channels.sandbox.client import SandboxClient
from channels.sandbox.keys import write_certificate, write_service_account
from channels.sandbox.server import running, serve

__all__ = ["SandboxClient", "running", "serve", "write_certificate", "write_service_account"]
