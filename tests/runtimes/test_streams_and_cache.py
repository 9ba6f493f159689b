"""The streams and the cache of compiled models that ``runtimes.open`` takes."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from numpy.typing import NDArray

import runtimes
from runtimes import Artifact, compiled_models, files
from runtimes.artifacts.manifest import Tuning
from runtimes.compiled_models import path_of_compiled
from runtimes.errors import ResourceError, UsageError
from runtimes.selection import select_candidates
from tests.exporter import small
from tests.refusals import refuses

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return small.export(small.BASIC, tmp_path_factory.mktemp("exported"))


def logits(path: Path, cache: Path | None) -> NDArray[np.float32]:
    with runtimes.open(path, "openvino", threads=1, model_cache=cache) as runtime:
        result: NDArray[np.float32] = runtime.infer({"input": IMAGES})["logits"]
        return result


def test_a_compiled_model_is_kept_where_the_user_says(exported: Artifact, tmp_path: Path) -> None:
    path = exported.path
    cache = tmp_path / "cache"
    cache.mkdir()
    before = small.content(path.parent)
    expected = logits(path, None)
    np.testing.assert_array_equal(logits(path, cache), expected)
    (kept,) = cache.iterdir()
    written = kept.stat().st_ino
    np.testing.assert_array_equal(logits(path, cache), expected)
    assert [each.stat().st_ino for each in cache.iterdir()] == [written]
    assert small.content(path.parent) == before


def test_another_model_of_that_name_size_and_date_is_compiled(exported: Artifact, tmp_path: Path) -> None:
    """OpenVINO's own key is the path with its size and date."""
    path, cache = tmp_path / "net.onnx", tmp_path / "cache"
    cache.mkdir()
    path.write_bytes(exported.path.read_bytes())
    first, stat = logits(path, cache), path.stat()
    model = onnx.load(path)
    classifier = next(one for one in model.graph.initializer if 10 in one.dims)
    classifier.raw_data = (1 - onnx.numpy_helper.to_array(classifier)).tobytes()
    path.write_bytes(model.SerializeToString())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    second = logits(path, cache)
    np.testing.assert_array_equal(second, logits(path, None))
    assert np.abs(second - first).max() > 1e-3


def test_a_damaged_compiled_model_never_runs(exported: Artifact, tmp_path: Path, said: list[tuple[str, str]]) -> None:
    expected = logits(exported.path, tmp_path)
    (kept,) = tmp_path.iterdir()
    good = kept.read_bytes()
    places = [0, 30, 57, 4095, 4096, len(good) // 2, len(good) - 1]
    damaged = [good[:cut] for cut in (0, 1, 4096, len(good) // 2, len(good) - 1)]
    damaged += [good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :] for at in places]
    for content in (*damaged, good + b"x"):
        said.clear()
        kept.write_bytes(content)
        np.testing.assert_array_equal(logits(exported.path, tmp_path), expected)
        ((code, _),) = said
        assert code in ("compiled-model-damaged", "compiled-model-unreadable")
        assert compiled_models.read_compiled(kept) is not None


def test_a_model_that_the_library_refuses_is_compiled_again(
    exported: Artifact, tmp_path: Path, said: list[tuple[str, str]]
) -> None:
    expected = logits(exported.path, tmp_path)
    (kept,) = tmp_path.iterdir()
    assert compiled_models.write_compiled(kept, b"whole, and of no processor")
    np.testing.assert_array_equal(logits(exported.path, tmp_path), expected)
    assert [code for code, _ in said] == ["compiled-model-refused"]
    said.clear()
    np.testing.assert_array_equal(logits(exported.path, tmp_path), expected)
    assert said == []


def test_what_a_compiled_model_depends_on_is_its_key(exported: Artifact, tmp_path: Path) -> None:
    facts: dict[str, object] = {"model": "a", "openvino": "1", "processor": "p", "settings": {"threads": 1}}
    paths = {path_of_compiled(tmp_path, facts | change) for change in ({}, *({name: "b"} for name in facts))}
    assert len(paths) == 5
    with runtimes.open(exported.path, "openvino", threads=1, model_cache=tmp_path) as runtime:
        assert Path(runtime.description.compiled or "").parent == tmp_path
    with runtimes.open(exported.path, "openvino", threads=1) as runtime:
        assert runtime.description.compiled is None
    with runtimes.open(exported.path, "openvino", threads=2, model_cache=tmp_path):
        assert len(list(tmp_path.iterdir())) == 2


def test_the_cache_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_models, "LIMIT_BYTES", 3 * 5000)
    stranger = tmp_path / "notes.txt"
    stranger.write_bytes(b"x" * 20_000)
    for number in range(5):
        path = tmp_path / f"{number}{compiled_models.SUFFIX}"
        assert compiled_models.write_compiled(path, b"y" * 900)
        os.utime(path, (number, number))
    assert sorted(path.name for path in tmp_path.glob("*.compiled")) == ["2.compiled", "3.compiled", "4.compiled"]
    assert stranger.exists()


def test_a_full_disk_leaves_the_model_running(
    exported: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[tuple[str, str]]
) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "sync", fail)
    np.testing.assert_array_equal(logits(exported.path, tmp_path), logits(exported.path, None))
    assert [code for code, _ in said] == ["compiled-model-not-kept"]
    assert not list(tmp_path.iterdir())


def test_the_folder_of_the_cache_must_exist(exported: Artifact, tmp_path: Path) -> None:
    with refuses(ResourceError, "folder-missing", "mkdir -p"):
        runtimes.open(exported.path, model_cache=tmp_path / "none")
    with refuses(ResourceError, "file-access-failed", exported.path):
        runtimes.open(exported.path, model_cache=exported.path)
    assert not (tmp_path / "none").exists()


def test_streams_are_those_that_were_tuned_or_asked_for(exported: Artifact) -> None:
    assert exported.manifest is not None
    tuning = Tuning("openvino", "cpu", 2, 1, "throughput", 0.001, 1000.0, "a machine", 2)
    tuned = replace(exported, manifest=replace(exported.manifest, tuning=tuning))
    (candidate,) = select_candidates(tuned, None, None, None)
    assert candidate.options.streams == min(2, candidate.options.threads)
    (fewer,) = select_candidates(tuned, None, None, 1)
    assert fewer.options.streams == 1
    assert {each.options.streams for each in select_candidates(exported, None, None, None)} == {1}


@pytest.mark.parametrize("streams", [0, 2, "1"])
def test_there_are_no_more_streams_than_threads(exported: Artifact, streams: Any) -> None:
    with refuses(UsageError, "streams-out-of-range", repr(streams), "1"):
        runtimes.open(exported.path, "openvino", threads=1, streams=streams)


def test_openvino_has_the_streams(exported: Artifact) -> None:
    with runtimes.open(exported.path, "openvino", threads=1, streams=1) as one:
        expected = one.infer({"input": IMAGES})["logits"]
    threads = min(2, os.cpu_count() or 1)
    with runtimes.Classifier.open(exported.path, "openvino", threads=threads, streams=threads) as several:
        native = several.runtime._session.native  # type: ignore[attr-defined]
        assert native.get_property("NUM_STREAMS") == threads
        np.testing.assert_allclose(several.runtime.infer({"input": IMAGES})["logits"], expected, rtol=1e-4, atol=1e-5)
