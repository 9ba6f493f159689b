"""Our networks against those of torchvision, timm and transformers, whose numbers scripts/oracle_vectors.py recorded.

None of these libraries is needed here. All networks are filled by a rule of names and shapes, and run on one noise.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from exporter.models.layers import multiply_adds, parameters
from exporter.models.resnet import build
from exporter.models.variants import VARIANTS, Variant, customise, variant
from exporter.weights.matching import shapes
from scripts import oracle_vectors
from scripts.oracle_vectors import KEPT, fill, images

FILE = json.loads(oracle_vectors.PATH.read_text(encoding="utf-8"))

ROWS: list[dict[str, Any]] = FILE["networks"]

TOLERANCE = 1e-5
"""Of the largest logit."""

IDS = [f"{row['variant']}-{row['library'].split()[0].strip(',')}" for row in ROWS]


def logits_of(row: Variant) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    # The filter of a blur is not in the state dict, so it needs its numbers from the beginning.
    with torch.device("cpu" if row.blur == "binomial" else "meta"):
        model = build(row)
    state = {name: torch.from_numpy(fill(name, shape)) for name, shape in shapes(row).items()}
    model.load_state_dict(state, assign=True)
    with torch.inference_mode():
        return model(torch.from_numpy(images(row.size[0]))).numpy()  # type: ignore[no-any-return]


def difference(row: Variant, recorded: dict[str, Any]) -> float:
    """Of the recorded logits, over the largest of all."""
    ours = logits_of(customise(row, size=(recorded["size"], recorded["size"])))
    assert float(np.abs(ours).max()) == pytest.approx(recorded["largest"], rel=1e-3)
    return float(np.abs(ours[:, :KEPT] - np.array(recorded["logits"])).max() / recorded["largest"])


def test_the_noise_is_that_of_the_file() -> None:
    assert oracle_vectors.noise_digest() == FILE["noise"]


@pytest.mark.parametrize("recorded", ROWS, ids=IDS)
def test_logits_are_those_of_the_other_library(recorded: dict[str, Any]) -> None:
    assert difference(variant(recorded["variant"]), recorded) <= TOLERANCE


@pytest.mark.parametrize("recorded", ROWS, ids=IDS)
def test_counts_are_those_of_the_other_library(recorded: dict[str, Any]) -> None:
    row = variant(recorded["variant"])
    assert parameters(row) == recorded["parameters"]
    assert multiply_adds(row) == recorded["multiply_adds"]


def test_every_family_is_compared() -> None:
    compared = {recorded["variant"] for recorded in ROWS}
    paper = {name for name, row in VARIANTS.items() if row.shortcut == "A" or not row.residual}
    known = {"cifar-resnet34", "cifar-resnet50", "cifar-resnet101", "cifar-resnet152", "wrn-16-8", "wrn-40-2"}
    assert VARIANTS.keys() - compared == paper | known


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("resnet50", {"stride": "v1"}),
        ("resnetaa50", {"blur": "none"}),
        ("resnetblur50", {"blur": "average"}),
    ],
)
def test_another_network_with_these_tensors_is_seen(name: str, changed: dict[str, Any]) -> None:
    """The comparison can fail where names and shapes cannot."""
    (recorded,) = (row for row in ROWS if row["variant"] == name and "transformers" not in row["library"])
    row = replace(customise(variant(name), size=(recorded["size"], recorded["size"])), **changed)
    ours = logits_of(row)
    assert float(np.abs(ours[:, :KEPT] - np.array(recorded["logits"])).max()) > 1e-3 * recorded["largest"]
