from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.paper import bundle
from exporter.weights import BUNDLE
from runtimes import files
from runtimes.errors import ResourceError


def a_run(folder: Path) -> Path:
    folder.mkdir()
    for name in ("weights.safetensors", "recipe.json", "log.jsonl"):
        (folder / name).write_text(name)
    return folder


def test_a_run_becomes_the_bundle_with_its_digest(tmp_path: Path) -> None:
    shutil.copy(bundle.BUNDLED.parent / BUNDLE, tmp_path / BUNDLE)
    target = bundle.bundle_weights(a_run(tmp_path / "run"), tmp_path)
    assert target.read_text() == "weights.safetensors"
    assert json.loads((tmp_path / BUNDLE).read_text())["sha256"] == files.sha256_of(target)
    assert target.with_suffix(".log.jsonl").read_text() == "log.jsonl"
    assert target.with_suffix(".recipe.json").read_text() == "recipe.json"


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    shutil.copy(bundle.BUNDLED.parent / BUNDLE, tmp_path / BUNDLE)
    run = a_run(tmp_path / "run")
    (run / "weights.safetensors").unlink()
    with pytest.raises(ResourceError, match=r"weights\.safetensors: cannot read: No such file"):
        bundle.bundle_weights(run, tmp_path)
