"""The backends for PyTorch: eager and compiled, on the CPU and on CUDA.

The modules for CUDA import PyTorch and are themselves imported only when a backend opens an artifact on CUDA.
"""
