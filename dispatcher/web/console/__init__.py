"""The console for operations."""
