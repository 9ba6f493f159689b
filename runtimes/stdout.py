"""Redirection of standard output, so that printed text of libraries, also of native code, does not mix with results."""

from __future__ import annotations

import os
import sys


def redirect_stdout() -> int:
    """Redirect standard output to standard error, and return a file descriptor of the original standard output.

    The redirection lasts until the process ends. The caller owns the descriptor.
    """
    sys.stdout.flush()
    original = os.dup(1)
    os.dup2(2, 1)
    return original
