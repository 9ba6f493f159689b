"""One runtime in a process of its own, so that a crash is a cell of the table."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runtimes.errors import quote
from scripts.consumers.models import Model

LIMIT_S = 300
"""The time limit for one file in seconds."""

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Consumer:
    """A runtime of others.

    Attributes:
        name: The name for the table.
        command: The program and its first arguments; it is called as ``scripts.consumers.programs.exchange`` says.
        environment: Variables of the process.
        note: What the table says about the way the runtime is called, empty for nothing.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """What a runtime made of a file.

    Attributes:
        consumer: The name of the runtime.
        version: Its version, or ``None`` if it did not start.
        form: The name of the form of the file.
        difference: The largest absolute difference of a logit from ONNX Runtime's, or ``None`` if there are no logits.
        agreement: The number of images with the same top-1 class, of ``images``.
        images: The number of images.
        reason: Why there are no logits, or ``None``.
    """

    consumer: str
    version: str | None
    form: str
    difference: float | None
    agreement: int
    images: int
    reason: str | None = None


def ask(consumer: Consumer, model: Model, folder: Path) -> Answer:
    """Return the answer of a runtime to one file.

    Args:
        consumer: The runtime.
        model: The file.
        folder: A folder for the files of the exchange.
    """
    source, target = folder / "input.bin", folder / "output.bin"
    model.images.tofile(source)
    target.unlink(missing_ok=True)
    arguments = (model.path, source, target, model.images.dtype.name, *model.images.shape)
    command = [*consumer.command, *map(str, arguments)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(folder), **consumer.environment}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=LIMIT_S
        )
        output = done.stdout
        failure = f"ended with exit code {done.returncode}" if done.returncode else "returned no finite logits"
        lines = done.stderr.strip().splitlines()
    except subprocess.TimeoutExpired:
        output, failure, lines = "", f"did not end within {LIMIT_S} s", []
    version = next((line.removeprefix("version ") for line in output.splitlines() if line.startswith("version ")), None)
    logits = np.fromfile(target, np.float32) if target.exists() else np.zeros(0, np.float32)
    if logits.size != model.logits.size or not np.isfinite(logits).all():
        reason = quote(lines[-1])[:300] if lines else failure
        return Answer(consumer.name, version, model.form.name, None, 0, len(model.logits), reason)
    rows = logits.reshape(model.logits.shape)
    return Answer(
        consumer=consumer.name,
        version=version,
        form=model.form.name,
        difference=float(np.abs(rows - model.logits).max()),
        agreement=int((rows.argmax(1) == model.logits.argmax(1)).sum()),
        images=len(rows),
    )
