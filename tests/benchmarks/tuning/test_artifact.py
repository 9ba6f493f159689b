from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import runtimes
from benchmarks.tuning import artifact as tuned
from benchmarks.tuning import pareto
from runtimes import Artifact
from runtimes.artifacts.manifest import FileRecord, Tuning
from runtimes.errors import ArtifactError, CompatibilityError, IntegrityError, ResourceError, UsageError
from tests.benchmarks.results import FASTER, change, estimate
from tests.benchmarks.scripts import artifact, foreign, read
from tests.refusals import refuses

TUNING = Tuning("fake", "cpu", 1, 4, "latency", 0.5, 8.0, "some machine")


def test_the_copy_is_whole_and_opens_with_its_options(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source = read(artifact(tmp_path / "in"))
    target = tmp_path / "out" / "best.fake"
    made = tuned.copy_with_tuning(source, target, TUNING)
    found = Artifact.read(target)
    assert made == found
    assert found.manifest is not None
    assert source.manifest is not None
    assert found.manifest.tuning == TUNING
    assert target.read_bytes() == source.path.read_bytes()
    np.testing.assert_array_equal(found.vectors().inputs, source.vectors().inputs)
    assert replace(found.manifest, tuning=None, vectors=source.manifest.vectors) == source.manifest
    assert sorted(os.listdir(target.parent)) == sorted(
        ["best.fake", "best.fake.json", found.manifest.vectors.name if found.manifest.vectors else ""]
    )
    with runtimes.open(target) as runtime:
        assert (runtime.description.backend, runtime.description.threads) == ("fake", 1)


def test_an_artifact_can_be_replaced_by_its_own_tuned_copy(tmp_path: Path) -> None:
    source = read(artifact(tmp_path))
    tuned.copy_with_tuning(source, source.path, TUNING)
    found = read(source.path)
    found.check_digest()
    assert found.manifest is not None
    assert found.manifest.tuning == TUNING
    assert len(found.vectors().inputs) == 7


def target_in(name: str, out: str | None, force: bool = False) -> Path:
    with tuned.target_of([name], out, force) as target:
        return target


def test_a_checkpoints_tuned_file_is_an_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.ones(1)}, "best.pth.tar")
    names = ("best.pth.tar", "net.engine", "resnet20", "own.nets:build")
    targets = [target_in(name, None).name for name in names]
    assert targets == ["best.tuned.onnx", "net.tuned.engine", "resnet20.tuned.onnx", "build.tuned.onnx"]


def test_an_artifact_without_vectors_is_carried_without(tmp_path: Path) -> None:
    source = read(artifact(tmp_path))
    assert source.manifest is not None
    bare = Artifact(source.path, source.format, replace(source.manifest, vectors=None))
    made = tuned.copy_with_tuning(bare, tmp_path / "best.fake", TUNING)
    assert made.manifest is not None
    assert made.manifest.vectors is None


def test_what_was_changed_meanwhile_is_not_carried(tmp_path: Path) -> None:
    source, target = read(artifact(tmp_path)), tmp_path / "best.fake"
    source.path.write_text(source.path.read_text() + " ")
    before = sorted(os.listdir(tmp_path))
    with refuses(IntegrityError, "file-changed-meanwhile", "net.fake"):
        tuned.copy_with_tuning(source, target, TUNING)
    assert sorted(os.listdir(tmp_path)) == before


def test_what_cannot_be_carried_is_refused(tmp_path: Path) -> None:
    with refuses(ArtifactError, "tuning-needs-manifest", "net.fake"):
        tuned.copy_with_tuning(read(foreign(tmp_path)), tmp_path / "best.fake", TUNING)
    source = read(artifact(tmp_path))
    assert source.manifest is not None
    large = replace(source.manifest, external=(FileRecord("net.fake.0a1b2c3d.data", "ab" * 32),))
    with refuses(CompatibilityError, "weights-external", "net.fake"):
        tuned.copy_with_tuning(Artifact(source.path, source.format, large), tmp_path / "best.fake", TUNING)


def test_a_disk_that_fails_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    source = read(artifact(tmp_path))
    with refuses(ResourceError, "file-access-failed", "best.fake"):
        tuned.copy_with_tuning(source, tmp_path / "missing" / "best.fake", TUNING)


@pytest.mark.parametrize(
    ("name", "out", "expected"),
    [
        ("resnet20", None, "resnet20.tuned.onnx"),
        ("resnet20", "./", "resnet20.tuned.onnx"),
        ("photos/mine.onnx", None, "mine.tuned.onnx"),
        ("photos/mine.v2.onnx", "there/", "there/mine.v2.tuned.onnx"),
        ("resnet20", "best.onnx", "best.onnx"),
    ],
)
def test_where_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, out: str | None, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert target_in(name, out) == Path(expected)


def test_what_is_there_is_replaced_only_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.onnx").write_text("x")
    (tmp_path / "resnet20.tuned.onnx").mkdir()
    with refuses(UsageError, "target-exists", "best.onnx", "--force"):
        target_in("resnet20", "best.onnx")
    assert target_in("resnet20", "best.onnx", force=True) == Path("best.onnx")
    with refuses(UsageError, "target-is-folder", "resnet20.tuned.onnx"):
        target_in("resnet20", None, force=True)


def test_a_folder_that_takes_no_files_is_told_first() -> None:
    with pytest.raises(ResourceError, match="cannot write into"):
        target_in("resnet20", "/proc/nothing/")


def test_the_manifest_names_no_number_of_a_gpu() -> None:
    """Another machine may have fewer."""
    one = pareto.candidate(change(FASTER, device="cuda:1"), "throughput", estimate(0.0))
    assert one is not None
    assert tuned.tuning_of(one, "throughput").device == "cuda"


def test_the_manifest_says_what_was_measured() -> None:
    figures = change(FASTER, threads=3, batch=8)
    one = pareto.candidate(figures, "throughput", estimate(0.0))
    assert one is not None
    assert figures.images_per_s is not None
    assert tuned.tuning_of(one, "throughput") == Tuning(
        "onnxruntime", "cpu", 3, 8, "throughput", 0.00041, figures.images_per_s, "Fast Processor 9, 2 of 4 processors"
    )
