"""Steps of a run as jobs of a SLURM cluster, submitted by submitit."""
