"""Our networks against those of torchvision, timm and transformers, whose numbers scripts/oracle_vectors.py recorded.

None of these libraries is needed here. All networks are filled by a rule of names and shapes, and run on one noise.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from exporter.models.layers import multiply_adds, parameters
from exporter.models.variants import VARIANTS, variant
from scripts import oracle_vectors
from scripts.oracle_vectors import TOLERANCE, difference

FILE = json.loads(oracle_vectors.PATH.read_text(encoding="utf-8"))

ROWS: list[dict[str, Any]] = FILE["networks"]

DEEP = ("101d", "152d", "200d", "101d_pruned", "rs101", "rs152", "rs200", "v2_101", "v2_152")
"""The ends of timm's networks that only the program compares. They repeat the blocks of shallower ones."""

SHALLOW = [row for row in ROWS if not row["variant"].endswith(DEEP)]


def name_of(recorded: dict[str, Any]) -> str:
    return f"{recorded['variant']}-{recorded['library'].split()[0].strip(',')}"


def test_the_noise_is_that_of_the_file() -> None:
    assert oracle_vectors.noise_digest() == FILE["noise"]


@pytest.mark.parametrize("recorded", SHALLOW, ids=name_of)
def test_logits_are_those_of_the_other_library(recorded: dict[str, Any]) -> None:
    assert difference(variant(recorded["variant"]), recorded) <= TOLERANCE


@pytest.mark.parametrize("recorded", ROWS, ids=name_of)
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
    [("resnet50", {"stride": "v1"}), ("resnetaa50", {"blur": "none"}), ("resnetblur50", {"blur": "average"})],
)
def test_another_network_with_these_tensors_is_seen(name: str, changed: dict[str, Any]) -> None:
    """The comparison can fail where names and shapes cannot."""
    recorded = next(row for row in ROWS if row["variant"] == name)
    assert difference(replace(variant(name), **changed), recorded) > 100 * TOLERANCE


def test_the_check_of_the_program_can_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    differences = iter([0.0, 2 * TOLERANCE, *[0.0] * len(ROWS)])
    monkeypatch.setattr(oracle_vectors, "difference", lambda _row, _recorded: next(differences))
    assert not oracle_vectors.check()
    assert len(capsys.readouterr().out.splitlines()) == len(ROWS)
