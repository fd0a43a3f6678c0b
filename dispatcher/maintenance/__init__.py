"""Use cases about the whole installation: sweep, retention, metrics, audit of the ledger, health check."""
