"""An interrupt at any moment of a use, after which the end must not wait for ever.

A lock of ``threading`` that is a class of Python, as that of an ``Event``, stays held if the interrupt comes inside its
``__enter__``; a counter stays raised if it comes between the change and the block. The uses run in a process of their
own: an exception at any instruction also strikes whatever the libraries of this one do at that moment.
"""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

LIMIT_S = 10.0

Use: TypeAlias = tuple[Callable[[], object], Callable[[], object]]
"""The function that uses an object, and the one that ends it."""


def interrupt_in_process(module: str, name: str, longest_s: float) -> int:
    """Runs ``interrupt_uses`` in a new process, and returns its result.

    Args:
        module: The module of the test.
        name: The function in it that makes an object, as for ``interrupt_uses``.
        longest_s: As for ``interrupt_uses``.
    """
    code = f"from {module} import {name}; from tests.interrupts import interrupt_uses; "
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", f"{code}print(interrupt_uses({name}, {longest_s}))"],
        env=os.environ | {"PYTHONPATH": os.fspath(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


class _Alarm:
    """A handler of SIGALRM: an interrupt during the use, and the failure of the test if the end hangs."""

    in_use = False
    due_s = math.inf

    def __call__(self, *_: object) -> None:
        if self.in_use:
            raise KeyboardInterrupt
        assert time.monotonic() < self.due_s, "the end waits for ever"


def interrupt_uses(make: Callable[[], Use], longest_s: float) -> int:
    """Interrupts 4,000 uses, each at a random moment within ``longest_s``, and then ends each.

    Args:
        make: Makes an object, and gives the function that uses it and the one that ends it.
        longest_s: The time until the latest interrupt.

    Returns:
        How many uses an interrupt ended.
    """
    alarm, moments, interrupts = _Alarm(), random.Random(1), 0
    before = signal.signal(signal.SIGALRM, alarm)
    try:
        for _ in range(4000):
            use, end = make()
            try:
                alarm.in_use = True
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, longest_s))
                use()
                alarm.in_use = False
            except (KeyboardInterrupt, RuntimeError):  # Thread.start can turn the first into the second
                alarm.in_use = False
                interrupts += 1
            alarm.due_s = time.monotonic() + LIMIT_S
            signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
            end()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return interrupts
