"""TensorRT-RTX: its engines, and ``.onnx`` files through an engine that is built of them on first use.

How an engine is told from one that must not be opened here is in ``runtimes.backends.tensorrt.compatibility``, how it
runs in ``runtimes.backends.tensorrt.session``; ``tensorrt`` goes the same way with another library.
"""

from __future__ import annotations

from runtimes.backends.tensorrt.backend import make_backend
from runtimes.backends.tensorrt.flavors import FLAVORS

BACKEND = make_backend(FLAVORS["rtx"], priority=2)
