"""A backend for tests, without a library: scripted delays and computed outputs.

A ``.fake`` file is one JSON object: ``{"fake": 1, "inputs": [...], "outputs": [...], "delays_s": [...], ...}``. Call k
of a session sleeps for ``delays_s[k % len]`` seconds. Each output holds, for each row of the first input, the mean of
that row times (class number + 1), so that different images have different outputs.
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
    """The content of a ``.fake`` file.

    Attributes:
        fake: The version of the format, 1.
        inputs: The specifications of the inputs.
        outputs: The specifications of the outputs.
        delays_s: The durations of the calls in seconds, used in turn.
        fail_at: The number of the call, from 0, that raises ``ResourceError``.
        die_at: The number of the call, from 0, that kills the process with SIGSEGV.
        scale: A factor for the outputs, to make them wrong.
    """

    fake: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    delays_s: tuple[float, ...] = (0.0,)
    fail_at: int | None = None
    die_at: int | None = None
    scale: float = 1.0


class FakeSession:
    """A session that runs a script. It counts the calls of ``run`` and of bound functions together."""

    def __init__(self, script: Script, options: Options) -> None:
        self.inputs = script.inputs
        self.outputs = script.outputs
        self.description = Description("fake", "1", str(options.device_name), "script", "float32", options.threads)
        self._script = script
        self._calls = itertools.count()
        self._lock = threading.Lock()

    def run(self, arrays: Arrays) -> Arrays:
        """Sleep and return the outputs, as ``Session.run``."""
        self._wait()
        return answers(self._script, arrays)

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that sleeps, as ``Session.bind``."""
        answers(self._script, arrays)  # raises an error now for a script without computable outputs
        return self._wait

    def _wait(self) -> None:
        with self._lock:
            call = next(self._calls)
        if call == self._script.fail_at:
            raise ResourceError(f"the fake script fails at call {call}", code="script-call-fails")
        if call == self._script.die_at:
            os.kill(os.getpid(), signal.SIGSEGV)
        delay = self._script.delays_s[call % len(self._script.delays_s)]
        if delay:
            time.sleep(delay)

    def close(self) -> None:
        """Do nothing: a script holds nothing to free."""


def answers(script: Script, arrays: Arrays) -> Arrays:
    """Return the outputs of the script's network as fresh arrays by name.

    Raises:
        ArtifactError: The number of classes of an output may vary.
    """
    first: Array = arrays[script.inputs[0].name]
    means = first.reshape(len(first), -1).mean(axis=1, dtype=np.float64)
    results = {}
    for spec in script.outputs:
        classes = spec.shape[-1]
        if not isinstance(classes, int):
            raise ArtifactError(
                f"the last dimension of the fake output {spec} must be a number", code="script-output-varies"
            )
        results[spec.name] = (means[:, None] * np.arange(1, classes + 1) * script.scale).astype(spec.dtype)
    return results


def _read(artifact: Artifact) -> Script:
    try:
        script = codec.loads(Script, files.read_bounded(artifact.path, _LIMIT_BYTES))
    except ArtifactError as error:
        raise ArtifactError(f"the fake script is invalid: {error.what}", code=error.code, path=artifact.path) from error
    if not script.inputs or not script.outputs or not script.delays_s:
        raise ArtifactError(
            "the fake script must have inputs, outputs and delays_s", code="script-incomplete", path=artifact.path
        )
    return script


def _open(artifact: Artifact, options: Options) -> FakeSession:
    return FakeSession(_read(artifact), options)


def _profile(artifact: Artifact, options: Options, arrays: Arrays) -> tuple[Layer, ...]:
    """Return one step, with the first delay as its duration."""
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
