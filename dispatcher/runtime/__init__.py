"""What a process starts with: settings, bootstrap, services, logs, alerts."""
