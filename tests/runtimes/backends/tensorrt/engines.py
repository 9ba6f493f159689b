"""Engine artifacts of the double, published as the exporter does it, with any part of their records changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from runtimes import Artifact, Manifest, files
from runtimes.artifacts.artifact import publish, vectors_name
from runtimes.artifacts.manifest import Engine, FileRecord, Parity
from runtimes.backends.fake import Script, answers
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.networks import NETWORK, Network
from tests.samples import SCRIPT, manifest_for

GPU, CAPABILITY, DRIVER = "NVIDIA Double", "9.0", "13.0"
"""Of the double of CUDA."""

ENGINE = Engine(
    flavor="tensorrt",
    version=double.VERSION,
    gpu=GPU,
    compute_capability=CAPABILITY,
    driver=DRIVER,
    targets=(),
    profiles=NETWORK.profiles,
    opt_level=3,
    workspace_bytes=None,
    tf32=False,
    hardware_compat="none",
    version_compat=False,
    stripped=False,
    onnx="scripted.onnx",
    tolerance=None,
)
"""Built on the very machine that the doubles make."""

PARITY = Parity("PyTorch fp32", "tensorrt 11", "7 images", (1,), 0.0, 0.0, 1e-4, 1.0)


def publish_script_engine(
    folder: Path,
    network: Network = NETWORK,
    parity: Parity | None = PARITY,
    parent: str | None = None,
    wrong: float = 1.0,
    **changes: Any,
) -> Artifact:
    """``scripted.engine`` in the folder. ``changes`` are to ``ENGINE``; ``wrong`` is what the expected logits of its
    test vectors are multiplied with."""
    target = folder / "scripted.engine"
    engine = replace(ENGINE, **{"profiles": network.profiles, "stripped": network.stripped, **changes})
    model, vectors = files.temporary_for(target), files.temporary_for(target)
    model.write_bytes(double.plan(network, b"vtrt" if engine.flavor == "rtx" else b"ftrt"))
    inputs = np.random.default_rng(0).standard_normal((7, 3, 8, 8), np.float32)
    logits = answers(Script(1, network.inputs, network.outputs), {"input": inputs})["logits"] * np.float32(wrong)
    with vectors.open("wb") as file:
        np.savez_compressed(file, inputs=inputs, logits=logits)
    digest = files.sha256_of(vectors)
    record = FileRecord(vectors_name(target, digest), digest)
    manifest = replace(
        manifest_for(SCRIPT, model, record), format="engine", parity=parity, parent=parent, engine=engine
    )
    return publish(model, target, manifest, vectors)


def manifest_of(artifact: Artifact) -> Manifest:
    """Which it has."""
    assert artifact.manifest is not None
    return artifact.manifest
