"""Nouns and small laws of the domain. Pure: the standard library and `channels.base` only."""
