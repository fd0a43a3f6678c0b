"""SQL of the subject `delivery`."""
