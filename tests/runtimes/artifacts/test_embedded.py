"""What an ONNX file says about itself, where its manifest is lost."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import runtimes
from exporter.inspect import manifest_view
from runtimes import Artifact
from runtimes.artifacts.embedded import KEY, Embedded, manifest_digest, read_embedded
from runtimes.errors import ArtifactError
from runtimes.onnx import graph
from tests.refusals import refuses

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


@pytest.fixture
def lost(onnx_artifact: Artifact, tmp_path: Path) -> Path:
    """The model file of the artifact alone."""
    return Path(shutil.copy(onnx_artifact.path, tmp_path / "lost.onnx"))


def with_metadata(path: Path, value: str | None) -> Path:
    """Replace what the file says about itself; ``None`` removes it."""
    model = onnx.load(path)
    del model.metadata_props[:]
    if value is not None:
        model.metadata_props.add(key=KEY, value=value)
    onnx.save(model, path)
    return path


def test_an_export_says_what_its_manifest_says(onnx_artifact: Artifact) -> None:
    manifest = onnx_artifact.manifest
    assert manifest is not None
    embedded = read_embedded(onnx_artifact)
    assert embedded == Embedded.of(manifest)
    assert (embedded.labels, embedded.preprocessing) == (manifest.labels, manifest.preprocessing)
    assert {entry.key: entry.value for entry in onnx.load(onnx_artifact.path).metadata_props} == {
        KEY: embedded.as_json()
    }


def test_the_digest_is_of_what_the_file_cannot_change(onnx_artifact: Artifact) -> None:
    manifest = onnx_artifact.manifest
    assert manifest is not None
    digest = manifest_digest(manifest)
    assert digest == manifest_digest(replace(manifest, sha256="0" * 64, parity=None, vectors=None))
    assert digest != manifest_digest(replace(manifest, labels=("a",) * 10))
    assert digest != manifest_digest(replace(manifest, precision="fp16"))


def test_a_lost_file_classifies_as_before_and_unverified(onnx_artifact: Artifact, lost: Path) -> None:
    with runtimes.Classifier.open(onnx_artifact.path) as whole, runtimes.Classifier.open(lost) as alone:
        assert (whole.verified, alone.verified) == (True, False)
        assert alone.names == whole.names
        assert alone.predict(IMAGE, top=3) == whole.predict(IMAGE, top=3)


def test_the_warning_is_logged_where_something_is_taken(
    onnx_artifact: Artifact, lost: Path, said: list[tuple[str, str]]
) -> None:
    known = read_embedded(Artifact.read(lost))
    assert known is not None
    runtimes.Classifier.open(lost, preprocessing=known.preprocessing, labels=["a"] * 10).close()
    runtimes.Classifier.open(onnx_artifact.path).close()
    assert said == []
    runtimes.Classifier.open(lost, preprocessing=known.preprocessing).close()
    assert [code for code, _ in said] == ["manifest-missing"]


def test_a_file_that_says_nothing_needs_a_preprocessing(lost: Path) -> None:
    assert read_embedded(Artifact.read(with_metadata(lost, None))) is None
    with refuses(runtimes.errors.UsageError, "preprocessing-required"):
        runtimes.Classifier.open(lost)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 3}', '{"name": "a"}', "[" * 100_000])
def test_a_broken_description_is_refused(lost: Path, text: str) -> None:
    with_metadata(lost, text)
    with pytest.raises(ArtifactError, match=r"lost\.onnx"):
        runtimes.Classifier.open(lost)
    with runtimes.open(lost) as runtime:  # arrays need no description
        assert runtime.infer({"input": np.zeros((1, 3, 32, 32), np.float32)})["logits"].shape == (1, 10)


def test_metadata_is_bounded_and_a_cut_file_is_told(lost: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "METADATA_LIMIT_BYTES", 10)
    with refuses(ArtifactError, "onnx-metadata-large"):
        graph.metadata(lost)
    lost.write_bytes(lost.read_bytes()[:-5])
    with refuses(ArtifactError, "onnx-field-cut"):
        graph.metadata(lost)


def test_inspect_tells_what_the_file_says(lost: Path) -> None:
    text = manifest_view.as_text(lost)
    assert "unverified" in text
    assert "input: float32 (batch, 3, 32, 32)" in text
    assert '"embedded": {' in manifest_view.as_json(lost)
    assert '"embedded": null' in manifest_view.as_json(with_metadata(lost, None))
