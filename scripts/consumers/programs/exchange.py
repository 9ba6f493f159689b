"""The exchange of a program with ``scripts.consumers``: a model and an input from files, logits into a file.

A program runs as a module in an environment of its own: ``PROGRAM MODEL INPUT OUTPUT DTYPE DIMENSION...``. INPUT holds
the bytes of one C-ordered array of this dtype and shape. OUTPUT takes the logits as bytes of float32. The program
prints the version of its runtime.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

Input = NDArray[np.float32] | NDArray[np.uint8]


def answer(run: Callable[[Path, Input], ArrayLike], version: str) -> None:
    """Run the model of the command line, write its logits, and print the version of the runtime.

    Args:
        run: Opens a model and returns its logits (n, classes) for an input.
        version: The version of the runtime.
    """
    model, source, target, dtype, *shape = sys.argv[1:]
    images = np.fromfile(source, dtype).reshape([int(size) for size in shape])
    sys.stdout.write(f"version {version}\n")
    sys.stdout.flush()
    np.asarray(run(Path(model), images), np.float32).tofile(target)
