"""A worker process of ``ProcessExecutor``: ``python -m runtimes.labelling.worker DESCRIPTOR``."""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection

from runtimes.labelling.processes import serve

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, which ends its workers
    serve(Connection(int(sys.argv[1])))
