"""The life of a chunk: gather, decide, render, claim, send, conclude, settle."""
