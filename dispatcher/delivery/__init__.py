"""Use cases about messages: the pipeline of a chunk, outcomes, explanation, reconciliation, messages as people look at them."""
