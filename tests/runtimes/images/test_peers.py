"""What torchvision, torch, timm and transformers made of small images, against rexport's preprocessing of their files.

``scripts/peers_of_preprocessing.py`` wrote the cases; none of these libraries is needed here.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.preprocessing.transform_file import read_transform
from runtimes.images.preprocessing import fit_image

with np.load(Path(__file__).with_name("peers.npz"), allow_pickle=False) as archive:
    ARRAYS = dict(archive)
RECORD = json.loads(ARRAYS["cases"].tobytes())
CASES: list[dict[str, Any]] = RECORD["cases"]


def test_each_library_and_filter_is_there() -> None:
    assert {case["peer"] for case in CASES} == {"torchvision", "torch", "timm", "transformers"}
    assert len({case["file"].get("interpolation") for case in CASES if case["peer"] == "torchvision"}) == 6


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: f"{CASES[number]['peer']}-{number}")
def test_pixels_are_the_peers_to_the_bit(number: int, tmp_path: Path) -> None:
    case = CASES[number]
    path = tmp_path / "file.json"
    path.write_text(json.dumps(case["file"]))
    view = read_transform(path).preprocessing
    pixels = fit_image(ARRAYS[f"image{case['image']}"], view)
    start = sum(math.prod(before["shape"]) for before in CASES[:number])
    expected = ARRAYS["pixels"][start : start + math.prod(case["shape"])].reshape(case["shape"])
    np.testing.assert_array_equal(pixels[: expected.shape[0], : expected.shape[1]], expected)
