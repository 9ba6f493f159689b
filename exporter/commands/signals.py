"""``EndingSignals``: SIGTERM and Ctrl-C end a command, at whatever moment they come."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from sys import UnraisableHookArgs

INTERRUPTED, TERMINATED = 130, 143
"""The exit codes of a command that Ctrl-C or SIGTERM ended."""

AGAIN_S = 0.05
"""The seconds after which a signal that was lost is sent again."""


def handle_signals() -> EndingSignals:
    """Let SIGTERM and SIGINT end the command from now on. To be called by the main thread.

    An ignored SIGINT, as under nohup or in the background of a shell, stays ignored.
    """
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    signals = EndingSignals(numbers, sys.unraisablehook)
    sys.unraisablehook = signals.resend_dropped
    for number in numbers:
        signal.signal(number, signals.raise_exception)
    return signals


class EndingSignals:
    """The handlers of SIGTERM and SIGINT. They raise ``SystemExit`` or ``KeyboardInterrupt`` in the main thread.

    Python prints and drops an exception that arises in a finalizer or in the callback of a weak reference. A signal
    that comes at such a moment is sent to the process again, so that the command does not work on.

    Args:
        numbers: The signals.
        hook: Takes every other exception that Python drops.
    """

    def __init__(self, numbers: Sequence[int], hook: Callable[[UnraisableHookArgs], object]) -> None:
        self._received: list[int] = []
        self._closed = False
        self._numbers, self._hook = numbers, hook

    def close(self) -> BaseException | None:
        """From now on a signal ends the process at once: the command is over, and nothing more can catch an exception.

        Returns:
            The exception of the first signal, or ``None`` without any. It can have arrived as another one: where a
            class is being defined, Python 3.11 wraps it.
        """
        for number in self._numbers:
            signal.signal(number, signal.SIG_DFL)
        self._closed = True
        sys.unraisablehook = self._hook
        return _exception_of(self._received[0]) if self._received else None

    def raise_exception(self, number: int, _: FrameType | None) -> NoReturn:
        """The handler of the signals."""
        self._received.append(number)
        raise _exception_of(number)

    def resend_dropped(self, unraisable: UnraisableHookArgs) -> None:
        """Takes the place of ``sys.unraisablehook``."""
        if self._received and issubclass(unraisable.exc_type, (KeyboardInterrupt, SystemExit)):
            timer = threading.Timer(AGAIN_S, self._send_again)
            timer.daemon = True
            timer.start()
            return
        self._hook(unraisable)

    def _send_again(self) -> None:
        if not self._closed:
            os.kill(os.getpid(), self._received[0])


def _exception_of(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(TERMINATED)
