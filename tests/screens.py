"""Commands on a terminal of the kernel's, and what a terminal emulator makes of what they write."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyte

from tests.exporter.command_line import environment
from tests.processes import default_interrupt

LIMIT_S = 240.0


@dataclass
class Session:
    """What a command wrote to its terminal.

    Attributes:
        code: Exit code; below 0 for a signal.
        raw: All bytes, escape sequences included.
        frames: What stood on the screen after each chunk: the lines that are not empty, from the top.
        lines: What stood there at the end. The screen has more lines than any of these commands writes.
        hidden: Whether the cursor was hidden at the end.
        column: Where the cursor was at the end.
    """

    code: int = 0
    raw: bytes = b""
    frames: list[tuple[str, ...]] = field(default_factory=list)
    lines: tuple[str, ...] = ()
    hidden: bool = False
    column: int = 0

    def statuses(self) -> list[str]:
        """The status lines one after another: what stood last on the screen and was gone at the end."""
        found: list[str] = []
        for frame in self.frames:
            if frame and frame[-1] not in self.lines and frame[-1] not in found[-1:]:
                found.append(frame[-1])
        return found


def watch(
    command: Sequence[str],
    columns: int = 80,
    variables: Mapping[str, str] | None = None,
    stdout: Path | None = None,
    act: Callable[[tuple[str, ...], int], object] = lambda *_: None,
) -> Session:
    """Runs the command with a terminal for all its streams, but for ``stdout`` where a file is named; blocks until it
    has ended.

    ``act`` gets each frame and the terminal's own end, and may type there: ``\\x03`` is an interrupt.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 200, columns, 0, 0))
    screen = pyte.Screen(columns, 200)
    stream = pyte.ByteStream(screen)
    session, deadline = Session(), time.monotonic() + LIMIT_S
    output = slave if stdout is None else os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with default_interrupt():
        process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=output,
            stderr=slave,
            env=environment() | {"TERM": "xterm-256color"} | dict(variables or {}),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    for descriptor in {slave, output}:
        os.close(descriptor)
    try:
        while chunk := _read(master, deadline):
            session.raw += chunk
            stream.feed(chunk)
            frame = tuple(line.rstrip() for line in screen.display if line.strip())
            if frame not in session.frames[-1:]:
                session.frames.append(frame)
                act(frame, master)
        session.code = process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        process.kill()
        process.wait()
        os.close(master)
    session.lines = session.frames[-1] if session.frames else ()
    session.hidden, session.column = screen.cursor.hidden, screen.cursor.x
    return session


def _read(master: int, deadline: float) -> bytes:
    """The next bytes; none when nothing has the terminal open any more."""
    if not select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0]:
        raise AssertionError(f"the command has not ended after {LIMIT_S:g} s")
    try:
        return os.read(master, 1 << 16)
    except OSError:  # how Linux ends a terminal
        return b""
