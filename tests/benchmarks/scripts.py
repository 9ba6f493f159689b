"""Scripted artifacts to test with: files of the fake backend, foreign ones and ones with manifest and test vectors."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.process.job import Job
from benchmarks.records.plan import Plan
from runtimes import codec, files
from runtimes.artifacts.artifact import Artifact, publish, vectors_name
from runtimes.artifacts.manifest import FileRecord, Manifest, Parity, Weights
from runtimes.backends.fake import Script, answers
from runtimes.images.preprocessing import Preprocessing
from runtimes.protocol import Array, TensorSpec

CLASSES = 10
BATCH = "batch"

SCRIPT = Script(
    fake=1,
    inputs=(TensorSpec("input", "float32", (BATCH, 3, 8, 8)),),
    outputs=(TensorSpec("logits", "float32", (BATCH, CLASSES)),),
)

RAW = replace(SCRIPT, inputs=(TensorSpec("input", "uint8", (BATCH, 8, 8, 3)),))
"""Takes pixels, and calls a bright image 9 and a black one 0."""

JOB = Job(
    artifact="",
    runtime="fake",
    device="cpu",
    threads=1,
    batch=2,
    data=None,
    limit=None,
    evaluate=True,
    seed=0,
    plan=Plan(duration_s=0.01, min_samples=3, max_samples=2000, window_s=0.001, warmup_limit_s=0.05),
)


def with_batch(script: Script, batch: int) -> Script:
    """The script with its batch fixed."""
    specs = (
        tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in specs)
        for specs in (script.inputs, script.outputs)
    )
    inputs, outputs = specs
    return replace(script, inputs=inputs, outputs=outputs)


def foreign(folder: Path, script: Script = SCRIPT, name: str = "net.fake") -> Path:
    """A scripted file alone."""
    path = folder / name
    path.write_text(codec.dumps(script))
    return path


def artifact(
    folder: Path,
    script: Script = SCRIPT,
    name: str = "net.fake",
    trained: bool = True,
    dataset: str | None = None,
    weights: str | None = None,
    precision: str = "fp32",
) -> Path:
    """A scripted file with a manifest and test vectors; the vectors are those of a scale of 1. Files of the same
    ``weights`` are of one network; by default each has its own."""
    model = foreign(folder, script, "model.tmp")
    vectors = folder / "vectors.tmp"
    inputs = _inputs(script)
    outputs = answers(replace(script, scale=1.0), {"input": inputs})
    with vectors.open("wb") as file:
        np.savez(file, **{"inputs": inputs, **outputs})  # type: ignore[arg-type]
    digest = hashlib.sha256(vectors.read_bytes()).hexdigest()
    target = folder / name
    manifest = Manifest(
        name="resnet20",
        format="fake",
        sha256=files.sha256_of(model),
        size_bytes=model.stat().st_size,
        variant={"name": "resnet20"},
        weights=Weights("bundled" if trained else "random", trained, digest_of(weights or str(target)), seed=0),
        precision=precision,
        inputs=script.inputs,
        outputs=script.outputs,
        labels=None,
        preprocessing=Preprocessing(None, (8, 8), 0, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        dataset=dataset,
        opset=None,
        producers={},
        parent=None,
        parity=Parity("script", "script", "noise", (1,), 0.0, 0.0, 1e-5, 1.0),
        vectors=FileRecord(vectors_name(target, digest), digest),
    )
    return publish(model, target, manifest, vectors).path


def digest_of(text: str) -> str:
    """A digest that stands for that of weights."""
    return hashlib.sha256(text.encode()).hexdigest()


def _inputs(script: Script) -> Array:
    """Seven of them: noise as the script's input takes it."""
    shape, random = (7, *map(int, script.inputs[0].shape[1:])), np.random.default_rng(0)
    if script.inputs[0].dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    return random.standard_normal(shape).astype(np.float32)


def read(path: Path) -> Artifact:
    """The artifact as it lies there."""
    return Artifact.read(path)
