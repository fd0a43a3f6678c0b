"""Events out: the catalogue of events, how they are published from the outbox, and the feed that others read."""
