from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from exporter.models.resnet import ResNet, build, initialise, settle_statistics
from exporter.models.variants import Variant, customise, variant
from exporter.weights import matching
from exporter.weights.recognition import VariantOptions, from_checkpoint
from runtimes.errors import ModelMismatchError, Reason, UnsafeArtifactError, UsageError
from tests.exporter.small import reason_codes
from tests.refusals import refuses

ANY = VariantOptions()


def ignore(notice: str | Reason) -> None:
    del notice


def filled(row: Variant) -> ResNet:
    model = build(row)
    initialise(model, 0)
    settle_statistics(model, 0)
    return model


def saved(folder: Path, model: nn.Module, name: str = "best.pth") -> Path:
    torch.save(model.state_dict(), folder / name)
    return folder / name


@pytest.fixture(scope="module")
def resnet20() -> ResNet:
    return filled(variant("resnet20"))


@pytest.fixture(scope="module")
def bottleneck() -> ResNet:
    return filled(customise(variant("resnet50"), classes=7, size=(32, 32), stride="v1"))


@pytest.mark.parametrize("row", [variant("resnet18"), customise(variant("resnet56"), classes=100, shortcut="B")])
def test_tensors_tell_their_variant(row: Variant) -> None:
    with torch.device("meta"):
        state = build(row).state_dict()
    assert matching.recognise(state) == (row,)


def test_shortcuts_without_weights_look_like_none(resnet20: ResNet) -> None:
    assert [row.name for row in matching.recognise(resnet20.state_dict())] == ["resnet20", "plain20"]


def test_a_file_of_one_variant_is_recognised_and_announced(tmp_path: Path, bottleneck: ResNet) -> None:
    notices: list[str | Reason] = []
    found = from_checkpoint(saved(tmp_path, bottleneck), ANY, notices.append)
    assert (found.variant.name, found.variant.classes, found.variant.stride) == ("resnet50", 7, "v1.5")
    assert (found.weights.record.origin, found.weights.record.source) == ("file", "best.pth")
    assert reason_codes(notices) == ["variant-recognised"]
    for value in ("best.pth", "resnet50", "7", "v1.5", "resnetaa50", "resnetblur50"):
        assert value in str(notices[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet50", ["resnetaa50 and resnetblur50"]),
        ("resnet18", []),
        ("cifar-resnet18", ["pooling"]),
        ("cifar-resnet50", ["pooling"]),
        ("wrn-28-10", []),
        ("resnetv2_50", []),
    ],
)
def test_what_the_tensors_do_not_show_is_told(name: str, words: list[str]) -> None:
    state = {key: torch.empty(shape, device="meta") for key, shape in matching.shapes(variant(name)).items()}
    told = matching.assumptions(variant(name), matching.recognise(state))
    assert len(told) == len(words)
    assert all(word in text for word, text in zip(words, told, strict=True))


def test_a_file_of_a_named_variant_is_not_announced(tmp_path: Path, resnet20: ResNet) -> None:
    notices: list[str | Reason] = []
    path = saved(tmp_path, resnet20)
    assert [
        from_checkpoint(path, VariantOptions(name), notices.append).variant.name for name in ("resnet20", "plain20")
    ]
    assert notices == []


def test_a_file_of_two_variants_is_refused(tmp_path: Path, resnet20: ResNet) -> None:
    with refuses(ModelMismatchError, "variant-ambiguous", "best.pth", "resnet20", "plain20"):
        from_checkpoint(saved(tmp_path, resnet20), ANY, ignore)


def test_a_file_of_no_variant_is_refused(tmp_path: Path) -> None:
    with refuses(ModelMismatchError, "checkpoint-unrecognised", "best.pth", "2 tensors"):
        from_checkpoint(saved(tmp_path, nn.Linear(3, 3)), ANY, ignore)


def test_a_file_of_another_variant_says_whose_it_is(tmp_path: Path, resnet20: ResNet) -> None:
    with refuses(ModelMismatchError, "other-variant", "best.pth", "resnet20", "resnet32"):
        from_checkpoint(saved(tmp_path, resnet20), VariantOptions("resnet32"), ignore)


def test_a_name_of_no_variant_is_refused(tmp_path: Path, resnet20: ResNet) -> None:
    with refuses(UsageError, "variant-unknown", "resnet21"):
        from_checkpoint(saved(tmp_path, resnet20), VariantOptions("resnet21"), ignore)


@pytest.mark.parametrize("extra", ["neck.weight", "stage.0.weight"])
def test_tensors_besides_the_network_are_listed(tmp_path: Path, resnet20: ResNet, extra: str) -> None:
    torch.save({**resnet20.state_dict(), extra: torch.ones(3)}, tmp_path / "best.pth")
    with refuses(ModelMismatchError, "tensors-unexpected", "best.pth", "resnet20", extra):
        from_checkpoint(tmp_path / "best.pth", ANY, ignore)


def test_a_file_that_holds_a_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 3), tmp_path / "whole.pth")
    with pytest.raises(UnsafeArtifactError):
        from_checkpoint(tmp_path / "whole.pth", ANY, ignore)
