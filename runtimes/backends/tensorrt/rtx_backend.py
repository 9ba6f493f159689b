"""The backend for TensorRT-RTX: engines, and ONNX files, from which an engine is built on first use."""

from __future__ import annotations

from runtimes.backends.tensorrt.backend import make_backend
from runtimes.backends.tensorrt.flavors import FLAVORS

BACKEND = make_backend(FLAVORS["rtx"], priority=2)
