"""Engines with the weights of another ONNX file, on the doubles of CUDA and TensorRT: the doubles' engines answer what
ONNX Runtime answers for the file whose weights they were given last."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import runtimes
from exporter.cli import main
from exporter.export_request import ExportRequest
from exporter.targets import onnx_file, tensorrt_engine
from exporter.targets.engine_refit import refit_engine
from runtimes import Artifact
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CheckFailedError,
    CompatibilityError,
    UsageError,
)
from runtimes.runtime import example
from tests.exporter.command_line import here
from tests.exporter.small import BASIC, SILENT, content, export
from tests.exporter.targets.test_tensorrt_engine import engine_of, manifest_of, rewrite, with_gpu
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt.cudadouble import Recorder


@dataclass(frozen=True)
class Pair:
    """An engine of one checkpoint, built to be refitted, and the ONNX file of another."""

    engine: Path
    onnx: Path
    recorder: Recorder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two ONNX files of one network with different weights."""
    folder = tmp_path_factory.mktemp("exported")
    request = ExportRequest(BASIC, f"{folder}/new.onnx", seed=1)
    return export(BASIC, folder).path, onnx_file.export(request, SILENT).path


@pytest.fixture
def pair(exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """TensorRT-RTX cannot build such an engine without a GPU: an engine of the double becomes one by its manifest."""
    old, new = exported
    with_gpu(monkeypatch, old)
    order = tensorrt_engine.EngineRequest(out=f"{tmp_path}/")
    engine = tensorrt_engine.build_artifact(old, order, SILENT).path
    rewrite(engine, engine=replace(engine_of(engine), refittable=True))
    return Pair(engine, new, with_gpu(monkeypatch, new))


def test_a_refitted_engine_has_the_new_weights(pair: Pair, tmp_path: Path) -> None:
    before = content(tmp_path)
    artifact = refit_engine(pair.engine, pair.onnx, SILENT, f"{tmp_path}/new.engine")
    manifest, parent = manifest_of(artifact.path), manifest_of(pair.onnx)
    assert (manifest.parent, manifest.weights) == (parent.sha256, parent.weights)
    assert manifest.parity is not None
    assert manifest.parity.relative_difference <= manifest.parity.tolerance
    assert engine_of(artifact.path) == replace(engine_of(pair.engine), onnx="new.onnx")
    assert pair.recorder.count("refit_from_file") == 1
    assert pair.recorder.count("serialize_with_config") == 1
    assert {name: content(tmp_path)[name] for name in before} == before
    with runtimes.open(artifact.path, device="cuda") as engine, runtimes.open(pair.onnx, "onnxruntime") as onnx:
        feeds = example(engine)
        np.testing.assert_allclose(engine.infer(feeds)["logits"], onnx.infer(feeds)["logits"], atol=1e-5)
    refit_engine(artifact.path, pair.onnx, SILENT, f"{tmp_path}/again.engine")  # it can be refitted again
    assert pair.recorder.faults == []


def test_weights_that_did_not_arrive_are_found_out(pair: Pair, exported: tuple[Path, Path], tmp_path: Path) -> None:
    with runtimes.open(exported[0], "onnxruntime") as old:
        pair.recorder.compute = old.infer
        before = content(tmp_path)
        with refuses(CheckFailedError, "parity-failed"):
            refit_engine(pair.engine, pair.onnx, SILENT, f"{tmp_path}/new.engine")
    assert content(tmp_path) == before


def test_an_engine_that_was_not_built_for_it(pair: Pair, tmp_path: Path) -> None:
    rewrite(pair.engine, engine=replace(engine_of(pair.engine), refittable=False))
    with refuses(CompatibilityError, "engine-not-refittable") as caught:
        refit_engine(pair.engine, pair.onnx, SILENT, f"{tmp_path}/new.engine")
    words = shlex.split(str(caught.value.hint))
    assert words[4:6] == ["rexport", "tensorrt"]
    assert "--refit" in words


def test_another_network_or_precision_is_refused(pair: Pair, exported: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(pair.onnx.parent, tmp_path / "others")
    other = tmp_path / "others" / pair.onnx.name
    changes: dict[str, object] = {"variant": {"name": "other"}, "precision": "fp16"}
    for name, value in changes.items():
        shutil.copytree(pair.onnx.parent, other.parent, dirs_exist_ok=True)
        rewrite(other, **{name: value})
        with refuses(CompatibilityError, "refit-of-other-network", name, "other" if name == "variant" else value):
            refit_engine(pair.engine, other, SILENT)
    with refuses(ArtifactError, "refit-needs-engine", "onnx"):
        refit_engine(exported[0], pair.onnx, SILENT, f"{tmp_path}/x.engine")
    with refuses(ArtifactError, "engine-needs-onnx", "engine"):
        refit_engine(pair.engine, pair.engine, SILENT, f"{tmp_path}/x.engine")


def test_another_version_of_the_library_cannot_refit(pair: Pair, tmp_path: Path) -> None:
    rewrite(pair.engine, engine=replace(engine_of(pair.engine), version_compat=True, version="11.2.0.1"))
    with refuses(CompatibilityError, "refit-needs-version", "11.2.0.1", "11.4"):
        refit_engine(pair.engine, pair.onnx, SILENT, f"{tmp_path}/x.engine")


def test_without_a_gpu_nothing_is_refitted(pair: Pair, tmp_path: Path) -> None:
    pair.recorder.devices = 0
    with refuses(BackendUnavailableError, "refit-needs-gpu", "no GPU"):
        refit_engine(pair.engine, pair.onnx, SILENT, f"{tmp_path}/x.engine")


def test_an_engine_that_is_there_is_kept(pair: Pair) -> None:
    with refuses(UsageError, "target-exists"):
        refit_engine(pair.engine, pair.onnx, SILENT, str(pair.engine))


def test_the_command_prints_the_path(pair: Pair, tmp_path: Path) -> None:
    done = here(main, "refit", pair.engine, pair.onnx, "-o", tmp_path / "new.engine")
    assert (done.code, done.stdout) == (0, f"{tmp_path}/new.engine\n")
    assert "new.onnx" in done.stderr
    assert Artifact.read(tmp_path / "new.engine").manifest is not None
    done = here(main, "refit", pair.engine, pair.onnx, "-o", tmp_path / "new.engine")
    assert (done.code, done.stdout) == (2, "")
