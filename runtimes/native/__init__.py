"""C++17 headers that read a manifest, prepare images as rexport does, and run OpenVINO or ONNX Runtime.

The headers need no library of rexport. ``python -m runtimes.native`` prints the folder for the compiler's option
``-I``.
"""

from __future__ import annotations

from pathlib import Path


def include_folder() -> Path:
    """Return the folder with the headers, which programs include as ``<rexport/classifier.hpp>``."""
    return Path(__file__).parent / "include"
