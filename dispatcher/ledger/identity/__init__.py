"""SQL of users, sessions and failed sign-ins."""
