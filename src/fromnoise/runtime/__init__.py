"""Device, dtype, seeds, errors, logging and paths: what every layer may use, and nothing else."""
