"""Use cases about campaigns and triggers: submission, dry run, schedule, actions, overview, template approval."""
