"""Artifacts to test with: how the fixtures of ``conftest`` make them, and how a test gets one that it may spoil."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from runtimes import Artifact, Manifest, Preprocessing, TensorSpec, codec, files
from runtimes.artifacts.artifact import publish, vectors_name
from runtimes.artifacts.manifest import FileRecord, Weights
from runtimes.backends.fake import Script, answers

SCRIPT = Script(
    fake=1,
    inputs=(TensorSpec("input", "float32", ("batch", 3, 8, 8)),),
    outputs=(TensorSpec("logits", "float32", ("batch", 10)),),
)

WIDER = replace(SCRIPT, scale=2.0, outputs=(replace(SCRIPT.outputs[0], shape=("batch", 12)),))

PREPROCESSING = Preprocessing(resize=8, crop=(8, 8), pad=0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def manifest_for(script: Script, model: Path, vectors: FileRecord | None) -> Manifest:
    """What goes with the scripted file at ``model``."""
    return Manifest(
        name="scripted",
        format="fake",
        sha256=files.sha256_of(model),
        size_bytes=model.stat().st_size,
        variant={"name": "scripted"},
        weights=Weights("random", False, "ab" * 32, seed=0),
        precision="fp32",
        inputs=script.inputs,
        outputs=script.outputs,
        labels=tuple(f"class {number}" for number in range(10)) if script.outputs[0].shape[-1] == 10 else None,
        preprocessing=PREPROCESSING,
        dataset=None,
        opset=None,
        producers={"rexport": "0"},
        parent=None,
        parity=None,
        vectors=vectors,
    )


def publish_script(target: Path, script: Script = SCRIPT, seed: int = 0) -> Artifact:
    """Publishes a scripted artifact with its test vectors at ``target``, over what is there."""
    shape = tuple(7 if isinstance(size, str) else size for size in script.inputs[0].shape)
    inputs = np.random.default_rng(seed).standard_normal(shape, np.float32)
    model, vectors = files.temporary_for(target), files.temporary_for(target)
    model.write_text(codec.dumps(script), encoding="utf-8")
    logits = answers(script, {script.inputs[0].name: inputs})[script.outputs[0].name]
    with vectors.open("wb") as file:
        np.savez_compressed(file, inputs=inputs, logits=logits)
    digest = files.sha256_of(vectors)
    record = FileRecord(vectors_name(target, digest), digest)
    return publish(model, target, manifest_for(script, model, record), vectors)


def foreign_script(target: Path, script: Script = SCRIPT) -> Artifact:
    """A scripted file alone, without a manifest."""
    target.write_text(codec.dumps(script), encoding="utf-8")
    return Artifact.read(target)


@contextlib.contextmanager
def killable(code: str, *arguments: object) -> Iterator[Callable[[], int]]:
    """Gives a function that starts ``turn(arguments)``, which ``code`` defines, in a loop in a process to be killed.

    It returns the process's number. All come from one forking process, so that a start takes a millisecond.
    """
    program = f"""{code}
import os, sys
for _ in sys.stdin:
    pid = os.fork()
    if pid == 0:
        count = 0
        while True:
            turn(sys.argv[1:], count)
            count += 1
    print(pid, flush=True)
    os.waitpid(pid, 0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        source, sink = process.stdout, process.stdin

        def start() -> int:
            sink.write("go\n")
            sink.flush()
            return int(source.readline())

        yield start


def copied(artifact: Artifact, folder: Path) -> Artifact:
    """The artifact with everything that belongs to it in another folder, where a test may spoil it."""
    for place in artifact.path.parent.glob(f"{artifact.path.name}*"):
        shutil.copyfile(place, folder / place.name)
    return Artifact(folder / artifact.path.name, artifact.format, artifact.manifest)
