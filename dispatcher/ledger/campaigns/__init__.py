"""SQL of the subject `campaigns`."""
