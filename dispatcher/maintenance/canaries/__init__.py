"""Canary recipients opt out every minute in each way; how long a message is still under way afterwards is measured and reported."""
