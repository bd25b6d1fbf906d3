"""Pure bytes: what goes over the wire and nothing else."""
