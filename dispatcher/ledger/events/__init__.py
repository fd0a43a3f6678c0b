"""SQL of events out: the outbox, into which each transaction writes its own changes, and the stream that they are published to."""
