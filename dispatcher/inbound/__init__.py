"""Use cases after a send: provider events and customers' replies."""
