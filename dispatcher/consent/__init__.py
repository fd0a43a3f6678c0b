"""Use cases about recipients and their choices: import and erasure, preferences, acknowledgement, links, DPV export."""
