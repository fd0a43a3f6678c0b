"""`dispatcher up`: every part as a child process on this machine."""
