"""The timing cache. TensorRT-RTX stands in for TensorRT: it times nothing, and reads and writes empty caches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtimes.backends.tensorrt import timing_cache
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import build
from runtimes.backends.tensorrt.flavors import FLAVORS
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import graphs

trt = pytest.importorskip("tensorrt_rtx")

STAND_IN = replace(FLAVORS["tensorrt"], module="tensorrt_rtx", magic=b"vtrt", least=(1, 5))

pytestmark = pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")


def _build(folder: Path, cache: Path) -> None:
    build(graphs.relu(folder / "relu.onnx"), Settings(timing_cache=cache), STAND_IN)


def test_a_build_writes_the_cache_and_the_next_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    original = trt.IBuilderConfig.create_timing_cache

    def create(config: object, content: bytes) -> object:
        read.append(bytes(content))
        return original(config, b"")

    monkeypatch.setattr(trt.IBuilderConfig, "create_timing_cache", create)
    cache = tmp_path / "times"
    _build(tmp_path, cache)
    written = cache.read_bytes()
    assert written
    assert read == [b""]
    _build(tmp_path, cache)
    assert read == [b"", written, written]  # the third is what others may have written meanwhile


def test_what_others_wrote_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "times"
    combined: list[object] = []
    original, original_create = trt.ITimingCache.combine, trt.IBuilderConfig.create_timing_cache
    monkeypatch.setattr(trt.IBuilderConfig, "create_timing_cache", lambda config, _: original_create(config, b""))

    def combine(one: object, other: object, ignore_mismatch: bool) -> object:
        combined.append(other)
        return original(one, other, ignore_mismatch)

    monkeypatch.setattr(trt.ITimingCache, "combine", combine)
    _build(tmp_path, cache)
    assert combined == []
    _build(tmp_path, cache)
    assert len(combined) == 1


def test_what_another_version_wrote_meanwhile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "times"
    _build(tmp_path, cache)
    answers, original = [True, False], trt.IBuilderConfig.create_timing_cache

    def create(config: Any, content: bytes) -> object:
        assert content
        return original(config, b"") if answers.pop(0) else None

    monkeypatch.setattr(trt.IBuilderConfig, "create_timing_cache", create)
    _build(tmp_path, cache)
    assert answers == []


def test_a_file_that_is_no_cache_is_refused_and_kept(tmp_path: Path) -> None:
    cache = tmp_path / "times"
    cache.write_bytes(b"junk" * 100)
    with refuses(ArtifactError, "timing-cache-unreadable", "times"):
        _build(tmp_path, cache)
    assert cache.read_bytes() == b"junk" * 100


def test_a_cache_of_another_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt.IBuilderConfig, "set_timing_cache", lambda *_: False)
    with refuses(CompatibilityError, "timing-cache-other-gpu"):
        _build(tmp_path, tmp_path / "times")


def test_an_unwritable_cache_is_refused_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refuses(ResourceError, "file-access-failed", "write into"):
        _build(tmp_path, tmp_path / "file" / "times")


def test_a_cache_that_cannot_be_written_costs_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[tuple[str, str]]
) -> None:
    cache = tmp_path / "times"

    def full(*_: object) -> None:
        raise ResourceError("the disk is full", code="disk-full", path=cache)

    monkeypatch.setattr(timing_cache, "save", full)
    assert build(graphs.relu(tmp_path / "relu.onnx"), Settings(timing_cache=cache), STAND_IN).plan.nbytes
    ((code, sentence),) = said
    assert code == "timing-cache-not-saved"
    assert str(cache) in sentence


def test_a_cache_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "times").mkdir()
    with refuses(ResourceError, "file-not-regular"):
        _build(tmp_path, tmp_path / "times")
