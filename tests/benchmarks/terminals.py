"""A terminal to test with: a real one of the kernel's, of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
from typing import TextIO


class Terminal:
    """A pseudo-terminal, and a context manager. What is written to ``file``, or by another process to ``descriptor``,
    is what ``read`` gives, with line ends as a terminal has them."""

    def __init__(self, columns: int) -> None:
        """``columns`` of 0 is a terminal that does not tell."""
        self._master, self.descriptor = pty.openpty()
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def file(self) -> TextIO:
        """The end that is written to; closing it leaves the terminal open."""
        return os.fdopen(os.dup(self.descriptor), "w", encoding="utf-8")

    def read(self) -> str:
        """What has been written since the last time."""
        found = b""
        while select.select([self._master], [], [], 0)[0] and (chunk := os.read(self._master, 1 << 16)):
            found += chunk
        return found.decode("utf-8", "replace")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        os.close(self._master)
