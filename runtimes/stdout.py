"""Standard output kept for a result: what libraries print there, from Python or from native code, goes to stderr."""

from __future__ import annotations

import os
import sys


def redirect_stdout() -> int:
    """Sends standard output to standard error from now on. The file descriptor of what it was, for the caller."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    return kept
