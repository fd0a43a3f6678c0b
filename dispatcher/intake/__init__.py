"""All input that comes as a file or JSON: it is parsed and checked here, and trusted everywhere else."""
