from __future__ import annotations

import json

import pytest

from exporter.models import listing
from exporter.models.variants import VARIANTS, customise, variant


def test_every_variant_is_in_the_table_and_the_json() -> None:
    lines = listing.all_as_table().splitlines()
    assert [line.split()[0] for line in lines if line.split() and line.split()[0] in VARIANTS] == list(VARIANTS)
    assert [row["variant"]["name"] for row in json.loads(listing.all_as_json())] == list(VARIANTS)


def test_lines_fit_their_width_and_end_in_no_space() -> None:
    for text in (listing.all_as_table(), *(listing.one_as_table(row) for row in VARIANTS.values())):
        for line in text.splitlines():
            assert len(line) <= listing.WIDTH
            assert line == line.rstrip()


def test_a_line_holds_our_figures_and_the_papers() -> None:
    (line,) = (line for line in listing.all_as_table().splitlines() if "resnet152 " in line)
    assert line.split() == [
        "resnet152", "bottleneck", "3-8-36-3", "B", "224x224", "60.19", "11.51", "11.30", "21.43",
    ]  # fmt: skip
    assert "…" not in listing.all_as_table()
    (line,) = (line for line in listing.all_as_table().splitlines() if "plain20 " in line)
    assert "none" in line.split()


@pytest.mark.parametrize("name", VARIANTS)
def test_stages_add_up(name: str) -> None:
    entry = listing.entry(variant(name))
    assert sum(stage.parameters for stage in entry.stages) == entry.parameters
    assert sum(stage.multiply_adds for stage in entry.stages) == entry.multiply_adds
    assert [stage.name for stage in entry.stages][0::5] in (["stem", "head"], ["stem"])


def test_stages_have_table_1s_shapes() -> None:
    shapes = {stage.name: stage.shape for stage in listing.entry(variant("resnet50")).stages}
    assert shapes == {
        "stem": (64, 112, 112),
        "layer1": (256, 56, 56),
        "layer2": (512, 28, 28),
        "layer3": (1024, 14, 14),
        "layer4": (2048, 7, 7),
        "head": (1000,),
    }


def test_shapes_do_not_depend_on_the_shortcut() -> None:
    for option in ("A", "B", "C"):
        row = customise(variant("resnet50"), shortcut=option)
        assert [stage.shape for stage in listing.entry(row).stages][1] == (256, 56, 56)


def test_one_variant_in_full() -> None:
    text = listing.one_as_table(customise(variant("resnet50"), stride="v1"))
    title, *_, paper = filter(None, text.splitlines())
    assert title.startswith("resnet50: ")
    assert {"shortcut B", "stride v1", "input 3x224x224", "1000 classes"} <= set(title.split(", "))
    assert {"3.80", "22.85%"} <= set(paper.split())
    assert text[text.index("[") + 1 : text.index("]", text.index("1x1"))].split() == [
        "1x1",
        "64,",
        "3x3",
        "64,",
        "1x1",
        "256",
    ]
    assert "25,557,032" in text
    data = json.loads(listing.one_as_json(variant("resnet20")))
    assert data["parameters"] == 269_722
    assert data["stages"][1]["shape"] == [16, 32, 32]
    assert "no shortcuts" in listing.one_as_table(variant("plain18"))
    assert "the paper" not in listing.one_as_table(variant("plain44"))
