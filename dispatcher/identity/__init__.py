"""Who may do what: users, sessions, one-time codes, the audit log."""
