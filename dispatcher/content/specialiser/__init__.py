"""Specialised rendering: one recorded path through a template serves all messages that take it."""
