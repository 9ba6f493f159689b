"""What TensorRT's Python bindings offer, release by release, and whether the code asks for anything else."""
