"""SQL of the subject `consent`."""
