"""Pages for customers: preference centre and unsubscribe."""
