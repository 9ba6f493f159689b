"""Ctrl-C and SIGTERM at random moments of commands: each ends at once and leaves whole files alone."""

from __future__ import annotations

import contextlib
import math
import os
import pty
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.commands.signals import INTERRUPTED, TERMINATED
from scripts.figures.labelled_images import export_bundled, write_images
from scripts.figures.setting import Figure, FigureSettings, console_script
from tests.faults.writers import check_artifacts
from tests.processes import default_interrupt

SIGNALS, IMAGES = 300, 256

LIMIT_S = 60.0
"""The longest time from a signal to the end of the command on a busy machine."""

ENDS_WITHIN_S = 1.0
"""The longest time from a signal to exit code 0, which only the very end of a process has all the same."""

ENDINGS = {signal.SIGINT: (INTERRUPTED, -signal.SIGINT), signal.SIGTERM: (TERMINATED, -signal.SIGTERM)}
"""The exit codes after a signal: ours, and that of a process which the signal ended after the work was over.

Python 3.11 also ends by SIGINT if the signal came while it executed a string of code, as ``dataclasses`` do.
"""

COMMANDS = (
    ("rexport", "onnx", "resnet20", "--weights", "random", "--force", "-o", "{out}/resnet20.onnx"),
    ("rexport", "torch", "resnet20", "--weights", "random", "--force", "-o", "{out}/resnet20.pt2"),
    ("rexport", "onnx", "resnet20", "--weights", "bundled", "--precision", "int8", "--force", "-o", "{out}/int8.onnx"),
    ("rexport", "predict", "{artifact}", "{images}"),
    ("rexport", "verify", "{artifact}"),
    ("rexport", "inspect", "{artifact}"),
    ("rexport", "explain", "{artifact}"),
    ("rexport", "list"),
    ("rexport", "info", "resnet50"),
    ("rexport", "label", "{images}", "--artifact", "{artifact}", "-o", "{out}/labels"),
    ("rexport", "web", "{artifact}", "--force", "-o", "{out}/page"),
    ("rbench", "doctor"),
    ("rbench", "run", "{artifact}", "--processes", "2", "--duration", "0.1", "-o", "{out}/results"),
)


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        code: Its exit code, below 0 for a signal; ``None`` if it had not ended after ``LIMIT_S``.
        struck: Whether it still ran when the signal was due.
        errors: What it wrote to its terminal.
        took_s: The seconds from the moment at which it handled signals to the end.
        after_s: The seconds from the signal to the end; 0 if it did not get one.
    """

    code: int | None
    struck: bool
    errors: str
    took_s: float
    after_s: float


def strike(command: Sequence[str], number: signal.Signals, after_s: float, folder: Path) -> Ending:
    """Start a command with a terminal for its errors, send it a signal, and wait for its end.

    Args:
        command: The command.
        number: SIGINT, which all processes of a terminal get, or SIGTERM, which the command alone gets.
        after_s: The seconds until the signal, from the moment at which the command handles it: before, Python does.
        folder: The folder for temporary files.
    """
    terminal, theirs = pty.openpty()
    with default_interrupt():
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=os.environ | {"TMPDIR": str(folder), "TERM": "xterm-256color"} | _cache(folder),
            start_new_session=True,
        )
    os.close(theirs)
    written: list[bytes] = []
    reader = threading.Thread(target=_read, args=(terminal, written), daemon=True)
    reader.start()
    try:
        while process.poll() is None and not _handles_signals(process.pid):
            time.sleep(0.001)
        start, code, struck_s = time.monotonic(), None, math.inf
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(after_s)
        if code is None:
            struck_s = time.monotonic()
            os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(LIMIT_S)
        end_s = time.monotonic()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    reader.join(LIMIT_S)
    os.close(terminal)
    struck = struck_s < end_s
    said = b"".join(written).decode(errors="replace")
    return Ending(code, struck, said, end_s - start, end_s - struck_s if struck else 0.0)


def _cache(folder: Path) -> dict[str, str]:
    """PyTorch keeps compiled code among the temporary files; here it has a folder beside them."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(folder.with_name("compiled"))}


def _read(terminal: int, written: list[bytes]) -> None:
    """Read until no process has the terminal open, which Linux reports as an error."""
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 1 << 16):
            written.append(chunk)


def _handles_signals(pid: int) -> bool:
    """Whether a process has a handler of SIGTERM. Python has none of its own."""
    with contextlib.suppress(OSError):
        caught = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()
        return bool(caught) and bool(int(caught[0], 16) >> signal.SIGTERM - 1 & 1)
    return False


@dataclass
class Target:
    """A command that is struck again and again.

    Attributes:
        words: The command.
        out: The folder of its output.
        temporary: The folder of its temporary files.
        calm_s: The seconds that it takes from the moment at which it handles signals.
    """

    words: tuple[str, ...]
    out: Path
    temporary: Path
    calm_s: float = 5 * LIMIT_S

    def strike(self, number: signal.Signals, after_s: float) -> Ending:
        if self.words[1] == "label":  # which has nothing to do where its output is whole
            shutil.rmtree(self.out / "labels", ignore_errors=True)
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        return strike((console_script(self.words[0]), *self.words[1:]), number, after_s, self.temporary)

    def run(self) -> None:
        """Run the command to its end: its output is there, and how long it takes is known."""
        calm = self.strike(signal.SIGINT, self.calm_s)
        if calm.code:
            raise RuntimeError(calm.errors)
        self.calm_s = calm.took_s


def judge(ending: Ending, number: signal.Signals, target: Target) -> Iterator[str]:
    """What is wrong after a command has ended, in a word or two each."""
    if ending.code is None:
        yield "hung"
    elif ending.struck and not ending.code and ending.after_s > ENDS_WITHIN_S:
        yield "went on"
    elif ending.code not in (0, *(ENDINGS[number] if ending.struck else ())):
        yield f"exit code {ending.code}"
    if "Traceback" in ending.errors:
        yield "traceback"
    if ending.code == INTERRUPTED and not ending.errors.rstrip().endswith("interrupted"):
        yield "silent"
    left = [path for path in target.out.rglob("*") if ".tmp" in path.name] + [*target.temporary.rglob("*")]
    if left:
        yield f"left over: {', '.join(path.name for path in left[:4])}"
    if target.words[1] in ("onnx", "torch"):
        try:
            check_artifacts(target.out)
        except Exception as error:  # whatever the checks of an artifact find
            yield f"damaged: {error!r}"


def measure_interrupts(setting: FigureSettings) -> Iterator[Figure]:
    """All commands in turn, over the output of the same command, half with SIGINT and half with SIGTERM."""
    chance, signals = random.Random(0), setting.limit or SIGNALS
    wrong, ends, notes = Counter[str](), Counter[str](), list[str]()
    targets = _prepare(setting.folder)[:signals]
    for turn in range(signals):
        round, which = divmod(turn, len(targets))
        target, number = targets[which], (signal.SIGINT, signal.SIGTERM)[round % 2]
        if not round:
            target.run()
        after_s = chance.uniform(0, target.calm_s)
        ending = target.strike(number, after_s)
        problems = list(judge(ending, number, target))
        wrong.update(problem.partition(":")[0] for problem in problems)
        ends[f"exit code {ending.code}" if ending.struck else "over before"] += 1
        if problems:
            said = ending.errors.strip().splitlines()[-1:]
            notes.append(f"{number.name} after {after_s:.3f} s, {' '.join(target.words[:3])}: {problems}, {said}")
    value = (
        f"{signals} signals at random moments of {len(targets)} commands, seed 0 ({_say(ends)}): {_say(wrong) or '0'}"
    )
    yield Figure("interrupts", value, "0 that hang, fail or leave anything", not wrong.total(), tuple(notes))


def _prepare(folder: Path) -> list[Target]:
    artifact, images = export_bundled(folder), write_images(folder, IMAGES)
    targets = []
    for number, words in enumerate(COMMANDS):
        out = folder / f"out{number}"
        out.mkdir()
        filled = tuple(word.format(artifact=artifact, images=images, out=out) for word in words)
        targets.append(Target(filled, out, folder / f"temporary{number}"))
    return targets


def _say(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
