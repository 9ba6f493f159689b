"""The recipe for Ray Data, in the environment that has it: labels, a broken image, too few CPUs, and a kill."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from runtimes import Classifier
from scripts.figures.labelled_images import export_bundled, write_images
from tests.peers import ROOT, peer
from tests.processes import wait_for

pytestmark = [pytest.mark.peers, pytest.mark.timeout(900)]

IMAGES, COMMIT_ROWS, LIMIT_S = 2000, 500, 400.0


class Recipe:
    """The recipe with a listing of images, of which the eighth is broken."""

    def __init__(self, folder: Path) -> None:
        self.python = peer("rayserve") / "bin" / "python"
        self.images, self.artifact = write_images(folder, IMAGES), export_bundled(folder)
        (self.images / "00007.png").write_bytes(b"no image")
        self.listing = folder / "listing.parquet"
        parquet.write_table(pyarrow.table({"uri": sorted(map(str, self.images.iterdir()))}), self.listing)

    def start(self, out: Path, processors: int = 3) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.python, ROOT / "docs" / "examples" / "ray_data.py", self.listing, self.artifact, out],
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT),
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback address alone
                "RAY_ADDRESS": "local",  # and no cluster that happens to run here
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": os.urandom(32).hex(),
                "RAY_OVERRIDE_RESOURCES": f'{{"CPU": {processors}}}',
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return Recipe(tmp_path_factory.mktemp("recipe"))


def is_whole(path: Path) -> bool:
    """Whether a Parquet file has been written to its end."""
    return path.read_bytes().endswith(b"PAR1")


def test_a_killed_run_resumes_without_doubles(recipe: Recipe, tmp_path: Path) -> None:
    first = recipe.start(tmp_path)
    end = time.monotonic() + LIMIT_S
    while not any(tmp_path.glob("labels/*.parquet")) and first.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    first.kill()
    first.communicate()
    wait_for(lambda: all(map(is_whole, tmp_path.glob("labels/*.parquet"))))  # Ray's workers end a little later
    committed = sum(parquet.read_metadata(path).num_rows for path in tmp_path.glob("labels/*.parquet"))
    assert 0 < committed < IMAGES
    second = recipe.start(tmp_path)
    _, stderr = second.communicate(timeout=LIMIT_S)
    assert second.returncode == 0, stderr
    rows: list[dict[str, Any]] = parquet.read_table(tmp_path / "labels").to_pylist()
    assert sorted(row["uri"] for row in rows) == sorted(map(str, recipe.images.iterdir()))
    labels = {Path(row["uri"]).name: row["label"] for row in rows}
    assert [(row["label"], Path(row["uri"]).name) for row in rows if row["error"]] == [("", "00007.png")]
    with Classifier.open(recipe.artifact, threads=1) as classifier:
        names = sorted(labels.keys() - {"00007.png"})
        predictions = classifier.predict([recipe.images / name for name in names])
    assert [labels[name] for name in names] == [prediction.label for prediction in predictions]


def test_too_few_processors_are_an_error(recipe: Recipe, tmp_path: Path) -> None:
    process = recipe.start(tmp_path, processors=2)
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "need 3 CPUs" in stderr
