"""Everything that knows a provider. Imports nothing of `dispatcher`.

`base` defines the `Provider` protocol and its errors. `providers` holds one adapter per file, and `registry` finds them.
`resilience` wraps an adapter in a rate limiter, a circuit breaker or a failover. `sandbox` is a local server with a double of
each provider. Adapters share `http` (transport), `http_adapter` (send loop), `validation`, `mail_batching`, `sms_segments`,
`urlencoded`, `event_fields`, `lookup` and `alerts`.
"""
