"""Use cases: the order of the steps, nothing else."""
