"""What comes back after a send: provider events and customers' replies."""
