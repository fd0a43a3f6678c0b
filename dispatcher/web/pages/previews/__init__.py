"""Messages as they are shown where they arrive: macros and style of the console and of the workbench."""
