"""Specialised rendering: one compiled path through a template serves all messages that take it."""
