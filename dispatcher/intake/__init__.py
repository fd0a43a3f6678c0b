"""Everything that comes in as a file or JSON: parsed and validated here, trusted behind it."""
