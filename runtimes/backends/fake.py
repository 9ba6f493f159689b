"""A backend without a library: scripted delays, computed answers. It ships so that timing and embedding can be tested.

A ``.fake`` file is one JSON object: ``{"fake": 1, "inputs": [...], "outputs": [...], "delays_s": [...], ...}``. Call k
of the process takes ``delays_s[k % len]`` seconds at least, by sleeping. The first output holds, for each row of the
first input, that row's mean times (class number + 1): a different answer for a different image.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtimes import codec, files
from runtimes.artifacts.artifact import Artifact
from runtimes.errors import ArtifactError, ResourceError
from runtimes.protocol import Backend, Description, Layer, Options
from runtimes.tensors.spec import Array, Arrays, TensorSpec

_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True)
class Script:
    """A ``.fake`` file. ``fail_at`` names the call, from 0, that raises ``ResourceError``; ``die_at`` the one that
    kills the process with SIGSEGV; ``scale`` multiplies the answers, to make them wrong."""

    fake: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    delays_s: tuple[float, ...] = (0.0,)
    fail_at: int | None = None
    die_at: int | None = None
    scale: float = 1.0


class FakeSession:
    """Runs a script. Calls are counted over ``run`` and what ``bind`` gives alike."""

    def __init__(self, script: Script, options: Options) -> None:
        self.inputs = script.inputs
        self.outputs = script.outputs
        self.description = Description("fake", "1", options.device, "script", "float32", options.threads)
        self._script = script
        self._calls = itertools.count()
        self._lock = threading.Lock()

    def run(self, arrays: Arrays) -> Arrays:
        self._wait()
        return answers(self._script, arrays)

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        answers(self._script, arrays)  # what a script cannot answer is refused now
        return self._wait

    def _wait(self) -> None:
        with self._lock:
            call = next(self._calls)
        if call == self._script.fail_at:
            raise ResourceError(f"the script fails at call {call}", code="script-call-fails")
        if call == self._script.die_at:
            os.kill(os.getpid(), signal.SIGSEGV)
        delay = self._script.delays_s[call % len(self._script.delays_s)]
        if delay:
            time.sleep(delay)

    def close(self) -> None:
        """There is nothing to free."""


def answers(script: Script, arrays: Arrays) -> Arrays:
    """What the script's network computes: fresh arrays."""
    first: Array = arrays[script.inputs[0].name]
    means = first.reshape(len(first), -1).mean(axis=1, dtype=np.float64)
    results = {}
    for spec in script.outputs:
        classes = spec.shape[-1]
        if not isinstance(classes, int):
            raise ArtifactError(f"{spec}: a scripted output's last dimension is a number", code="script-output-varies")
        results[spec.name] = (means[:, None] * np.arange(1, classes + 1) * script.scale).astype(spec.dtype)
    return results


def _read(artifact: Artifact) -> Script:
    try:
        script = codec.loads(Script, files.read_bounded(artifact.path, _LIMIT_BYTES))
    except ArtifactError as error:
        raise ArtifactError(f"not a script: {error.what}", code=error.code, path=artifact.path) from error
    if not script.inputs or not script.outputs or not script.delays_s:
        raise ArtifactError("a script needs inputs, outputs and delays_s", code="script-incomplete", path=artifact.path)
    return script


def _open(artifact: Artifact, options: Options) -> FakeSession:
    return FakeSession(_read(artifact), options)


def _profile(artifact: Artifact, options: Options, arrays: Arrays) -> tuple[Layer, ...]:
    """A script is one step that takes its first delay."""
    session = FakeSession(script := _read(artifact), options)
    answers(script, arrays)
    return (Layer("script", ("script",), "Script", session.description.precision, True, script.delays_s[0]),)


BACKEND = Backend(
    name="fake",
    title="Fake",
    formats=("fake",),
    devices=("cpu",),
    priority=90,
    missing=lambda: None,
    open=_open,
    profile=_profile,
    for_tests=True,
)
