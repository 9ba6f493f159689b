"""TensorRT and TensorRT-RTX by one code path: ``flavors`` tells them apart, ``building`` makes an engine of an ONNX
file, ``cache`` keeps those that were built on first use.

Importing any of it needs NumPy alone; the libraries are imported by the functions that use them.
"""
