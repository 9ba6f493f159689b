"""TensorRT and TensorRT-RTX with their own libraries on a real GPU: an engine from an artifact, and what it answers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import runtimes
from benchmarks.machine import gpu
from runtimes import Artifact
from runtimes.backends.tensorrt.flavors import FLAVORS, Flavor
from runtimes.parity import compare
from runtimes.tensors import cuda
from tests.gpu.conftest import Samples, images

NO_GPU = cuda.missing()
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}

pytestmark = [pytest.mark.tensorrt, pytest.mark.skipif(NO_GPU is not None, reason=f"no GPU: {NO_GPU}")]


@dataclass(frozen=True)
class Built:
    """An engine for batches of 1 to 8, best at 4."""

    flavor: Flavor
    precision: str
    artifact: Artifact


CASES = [
    pytest.param(
        flavor,
        precision,
        id=f"{flavor.name}-{precision}",
        marks=pytest.mark.skipif(flavor.missing() is not None, reason=str(flavor.missing())),
    )
    for flavor in FLAVORS.values()
    for precision in TOLERANCE
]


def rexport(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest, samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Built:
    flavor, precision = request.param
    target = tmp_path_factory.mktemp("built") / f"resnet20.{precision}.engine"
    options = ("--flavor", flavor.name, "--min-batch", 1, "--opt-batch", 4, "--max-batch", 8, "-o", target)
    done = rexport("tensorrt", samples.onnx[precision].path, *options)
    if done.returncode == 4:
        pytest.skip(f"{flavor.title} does not know this GPU: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return Built(flavor, precision, Artifact.read(target))


def _cases() -> pytest.MarkDecorator:
    cases = [pytest.param(param.values, id=param.id, marks=param.marks) for param in CASES]
    return pytest.mark.parametrize("built", cases, indirect=True)


each = _cases()


@each
def test_an_engine_was_checked_where_it_was_built(built: Built) -> None:
    manifest = built.artifact.manifest
    assert manifest is not None
    assert manifest.engine is not None
    assert manifest.parity is not None
    assert rexport("verify", built.artifact.path, "--device", "cuda").returncode == 0


@each
def test_an_engine_answers_in_and_beyond_its_profile(built: Built) -> None:
    with runtimes.open(built.artifact.path, device="cuda") as opened:
        assert opened.description.backend == built.flavor.backend
        results, _ = compare(opened, built.artifact.vectors())
        result = results["logits"]
        assert result.relative_difference <= TOLERANCE[built.precision]
        feeds = images(21)
        together = opened.infer(feeds)["logits"]
        assert together.shape == (21, 10)
        alone = opened.infer({"input": feeds["input"][20:]})["logits"]
        np.testing.assert_allclose(alone[0], together[20], rtol=0, atol=1e-2 * np.abs(together).max())


@each
def test_the_engines_layers_are_told(built: Built) -> None:
    done = rexport("inspect", built.artifact.path)
    assert done.returncode == 0, done.stderr
    assert ("float16" if built.precision == "fp16" else "float32") in done.stdout


each_flavor = pytest.mark.parametrize(
    "flavor", [pytest.param(*param.values[:1], id=param.id, marks=param.marks) for param in CASES[::2]]
)


@each_flavor
def test_a_graph_is_built_on_first_use_and_kept(
    flavor: Flavor, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "engines"))
    answers = []
    kept: list[dict[str, float]] = []
    for _ in range(2):
        with runtimes.open(samples.onnx["fp16"].path, flavor.backend, "cuda") as opened:
            answers.append(opened.infer(images(2))["logits"])
        engines = list((tmp_path / "engines").rglob("*.engine"))
        kept.append({str(place): place.stat().st_mtime for place in engines})
    assert len(kept[0]) == 1
    assert kept[0] == kept[1]
    np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=1e-2 * np.abs(answers[0]).max())


@each_flavor
def test_an_engine_of_first_use_is_built_for_its_batch(
    flavor: Flavor, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "engines"))
    for batch in (None, 2):
        with runtimes.open(samples.onnx["fp16"].path, flavor.backend, "cuda", batch=batch) as opened:
            assert opened.infer(images(5))["logits"].shape == (5, 10)
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 2
    assert len(list((tmp_path / "engines").glob("*.timing"))) == flavor.measures_kernels


@each_flavor
def test_bound_batches_share_their_memory(flavor: Flavor, samples: Samples) -> None:
    meter = gpu.gauge("cuda")
    if meter is None or meter.used_bytes() is None:
        pytest.skip(f"the GPU's memory cannot be read: {gpu.missing()}")
    with runtimes.open(samples.onnx["fp32"].path, flavor.backend, "cuda") as opened:
        calls = [opened.bind(images(1, 0))]
        before = meter.used_bytes() or 0
        calls += [opened.bind(images(1, seed)) for seed in range(1, 16)]
        for call in calls:
            call()
        assert (meter.used_bytes() or 0) - before < 128 << 20


@each_flavor
def test_other_weights_come_into_an_engine(flavor: Flavor, samples: Samples, tmp_path: Path) -> None:
    engine, other = tmp_path / "old.engine", tmp_path / "new.onnx"
    options = ("--flavor", flavor.name, "--refit", "--tiling", "fast", "--aux-streams", 0, "-o", engine)
    done = rexport("tensorrt", samples.onnx["fp32"].path, *options)
    if done.returncode == 4:
        pytest.skip(f"{flavor.title} does not know this GPU: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert rexport("onnx", "resnet20", "--seed", 1, "-o", other).returncode == 0
    done = rexport("refit", engine, other, "-o", tmp_path / "new.engine")
    assert done.returncode == 0, done.stderr  # it was compared with the new file's vectors
    done = rexport("refit", tmp_path / "new.engine", samples.onnx["fp32"].path, "-o", tmp_path / "again.engine")
    assert done.returncode == 0, done.stderr


@each
def test_the_layers_are_written_as_trtexec_does(built: Built, tmp_path: Path) -> None:
    layers, profile = tmp_path / "layers.json", tmp_path / "profile.json"
    done = rexport("inspect", built.artifact.path, "--export-layer-info", layers, "--export-profile", profile)
    assert done.returncode == 0, done.stderr
    assert json.loads(layers.read_text())["Layers"]
    first, *rows = json.loads(profile.read_text())
    assert first["count"] > 1
    assert sum(row["percentage"] for row in rows) == pytest.approx(100)
