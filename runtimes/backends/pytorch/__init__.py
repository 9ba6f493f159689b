"""PyTorch on a CUDA device: streams, staging and recordings around a program. Imported by its backends when they open
something there, and by nothing else: it imports PyTorch."""
