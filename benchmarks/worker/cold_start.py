"""One cold start: ``python -P cold_start.py ARTIFACT RUNTIME DEVICE THREADS CACHE LAUNCHED REPLY``.

The program is run as a file. It imports only ``sys`` and ``time`` before the first step has ended, because an earlier
import would not count in its step. ``LAUNCHED`` is the parent's monotonic clock right before it started this process.
On Linux all processes share this clock. ``CACHE`` is a folder of compiled models, or empty. The file ``REPLY`` receives
a ``benchmarks.records.samples.ColdStart`` as JSON.
"""

import sys
import time

STEADY_CALLS = 20
"""The largest number of calls after the first."""

STEADY_LIMIT_S = 1.0
"""The total time of the calls after the first, at which no further call begins."""


def main(path: str, name: str, device: str, threads: int, model_cache: str, launched_s: float) -> str:
    """Take the steps and return their times as JSON. No step includes the making of an input.

    Args:
        path: The artifact.
        name: The name of the backend.
        device: The device.
        threads: The number of threads.
        model_cache: The folder of compiled models, or empty.
        launched_s: The parent's monotonic clock right before it started this process.
    """
    clock = time.monotonic
    python_s = clock() - launched_s

    start = clock()
    import runtimes

    import_s = clock() - start

    start = clock()
    runtime = runtimes.open(path, name, device, threads, model_cache=model_cache or None)
    open_s = clock() - start

    from runtimes.runtime import example

    feeds = example(runtime)
    start = clock()
    runtime.infer(feeds)
    first_s = clock() - start

    calls: list[float] = []
    while len(calls) < STEADY_CALLS and sum(calls) < STEADY_LIMIT_S:
        start = clock()
        runtime.infer(feeds)
        calls.append(clock() - start)
    with open("/proc/self/status") as status:  # not by ``benchmarks.worker``, whose imports would add to it
        peaks = [int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")]
    peak_bytes = peaks[0] if peaks else None
    runtime.close()

    import statistics

    from benchmarks.records.samples import ColdStart
    from runtimes import codec

    return codec.dumps(ColdStart(python_s, import_s, open_s, first_s, statistics.median(calls), peak_bytes))


if __name__ == "__main__":
    try:
        reply = main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], float(sys.argv[6]))
    except Exception as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(getattr(error, "exit_code", 70))
    with open(sys.argv[7], "w", encoding="utf-8") as file:
        file.write(reply)
