"""The backends for TensorRT and TensorRT-RTX, which share their code.

``flavors`` describes the two libraries, ``builder`` builds an engine from an ONNX file, and ``engine_cache`` keeps the
engines that were built on first use. Importing these modules needs only NumPy; functions import the libraries.
"""
