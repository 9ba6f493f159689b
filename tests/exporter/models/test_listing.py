from __future__ import annotations

import json

import pytest

from exporter.document.blocks import Document, Sentence, Table
from exporter.document.terminal import as_text
from exporter.models import listing
from exporter.models.variants import FAMILIES, VARIANTS, customise, variant
from tests.documents import lines, numbers


def table(document: Document) -> Table:
    """The only one."""
    (found,) = (block for block in document.blocks if isinstance(block, Table))
    return found


def test_every_variant_is_in_the_table_and_the_json() -> None:
    rows = table(listing.catalogue_document()).rows
    assert [row.cells[0] for row in rows if not row.state] == list(VARIANTS)
    assert [row.cells[0] for row in rows if row.state == "strong"] == list(FAMILIES)
    data = json.loads(listing.all_as_json())
    assert [row["variant"]["name"] for row in data] == list(VARIANTS)
    assert {row["family"] for row in data} == set(FAMILIES)


def test_lines_fit_their_width_and_end_in_no_space() -> None:
    for document in (listing.catalogue_document(), *map(listing.variant_document, VARIANTS.values())):
        for line in as_text(document).splitlines():
            assert len(line) <= 100
            assert line == line.rstrip()


def test_a_line_holds_our_figures_and_the_papers() -> None:
    cells = {line[0]: line[1:] for line in table(listing.catalogue_document()).cells}
    assert cells["resnet152"] == (
        "bottleneck", "3-8-36-3", "224x224", "60.19", "", "11.51", "11.30", "21.43",
    )  # fmt: skip
    assert "…" not in as_text(listing.catalogue_document())


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


OPTIONS = ("groups", "pool", "down", "attention", "blur", "norm", "order", "final_norm", "channels")
"""The fields that the networks of He et al. 2015 leave at their defaults."""


def test_each_option_of_a_network_is_named() -> None:
    plain = variant("resnet18")
    for row in VARIANTS.values():
        changed = sum(getattr(row, name) != getattr(plain, name) for name in OPTIONS)
        wide = row.groups == 1 and row.base_width != plain.base_width
        assert len(listing._options(row)) == changed + wide + (row.stem == "deep"), row.name
    text = as_text(listing.variant_document(variant("resnext50_32x4d")))
    assert "32" in text.splitlines()[1]


def test_one_variant_in_full() -> None:
    document = listing.variant_document(customise(variant("resnet50"), stride="v1"))
    rows = {line["stage"]: line for line in lines(table(document))}
    assert "3x3 64" in rows["layer1"]["layers"]
    assert rows["total"]["parameters"] == "25,557,032"
    title, printed = (block.text for block in document.blocks if isinstance(block, Sentence))
    assert {"resnet50:", "B,", "v1,", "3x224x224,", "1000"} <= set(title.split())
    assert numbers(printed) == ["3.80", "1", "22.85", "1", "3", "10"]
    data = json.loads(listing.one_as_json(variant("resnet20")))
    assert data["parameters"] == 269_722
    assert data["stages"][1]["shape"] == [16, 32, 32]
    assert "no shortcuts" in as_text(listing.variant_document(variant("plain18")))
    unknown = listing.variant_document(variant("plain44"))
    assert [type(block) for block in unknown.blocks] == [Sentence, Table]
