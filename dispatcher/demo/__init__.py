"""`dispatcher demo`: made-up customers and a check of what was delivered."""
