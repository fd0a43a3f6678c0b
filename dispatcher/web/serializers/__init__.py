"""Plain data for JSON and tables, with the same shapes on the command line and over HTTP. No personal data but ids."""
