"""Ways to reach a person: one promise (`channels.base`), and an adapter for each provider that keeps it.

`sendgrid`, `twilio`, `fcm` and `smtp` are the adapters, `outbox` the one that keeps what it is given, `sandbox` a local
server that speaks the providers' APIs. `http` is the transport they share, `handover` and `checks` what else they share.
"""
