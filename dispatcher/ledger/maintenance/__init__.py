"""SQL of the subject `maintenance`."""
