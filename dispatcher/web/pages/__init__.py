"""The pages that people look at: plain Jinja, autoescaped, no scripts needed."""
