"""Use cases about the whole: sweep, retention, metrics, audit of the ledger, health check."""
