"""Periodic work: sweep, retention, health check."""
