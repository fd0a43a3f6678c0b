"""Programs for those who work on this project. Nothing of it is installed."""
