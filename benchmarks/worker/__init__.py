"""What runs inside a measured process, and nothing else."""
