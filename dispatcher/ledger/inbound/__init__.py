"""SQL of the subject `inbound`."""
