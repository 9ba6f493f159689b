from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exporter.models.resnet import ResNet, build, initialise, settle_statistics
from exporter.models.variants import Variant, customise, variant
from exporter.weights import matching
from exporter.weights.recognition import VariantOptions, from_checkpoint, from_module
from runtimes.errors import ModelMismatchError, Reason, RexportError, UnsafeArtifactError, UsageError
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


class Foreign(nn.Module):
    """A module that is none of ours, computes by one of ours and then by a function."""

    def __init__(self, model: nn.Module, then: Callable[[Tensor], object] = lambda logits: logits) -> None:
        super().__init__()
        self.model = model
        self.then = then

    def forward(self, x: Tensor) -> object:
        return self.then(self.model(x))


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


def test_a_module_without_a_classifier_is_refused(resnet20: ResNet) -> None:
    headless = filled(resnet20.variant)
    headless.fc = nn.Identity()  # type: ignore[assignment]
    with refuses(ModelMismatchError, "classifier-missing", "features"):
        from_module(headless, VariantOptions("resnet20"), 0, ignore)


def test_a_module_without_a_classifier_is_a_trunk(resnet20: ResNet) -> None:
    headless = filled(resnet20.variant)
    headless.fc = nn.Identity()  # type: ignore[assignment]
    found = from_module(headless, VariantOptions("resnet20"), 0, ignore, headless=True)
    assert (found.variant.name, found.variant.classes) == ("resnet20", 0)
    assert not any(name.startswith("fc.") for name in found.weights.state)


def test_a_file_that_holds_a_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 3), tmp_path / "whole.pth")
    with pytest.raises(UnsafeArtifactError):
        from_checkpoint(tmp_path / "whole.pth", ANY, ignore)


def test_one_of_our_modules_is_its_own_variant(resnet20: ResNet) -> None:
    found = from_module(resnet20, ANY, 0, ignore)
    assert found.variant == resnet20.variant
    assert (found.weights.record.origin, found.weights.record.source) == ("module", "ResNet")
    torch.testing.assert_close(found.weights.state, dict(resnet20.state_dict()))


@pytest.mark.parametrize("wrap", [Foreign, nn.DataParallel])
def test_a_foreign_module_is_told_apart_by_its_outputs(
    resnet20: ResNet, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    assert from_module(wrap(resnet20), ANY, 0, ignore).variant.name == "resnet20"
    assert from_module(wrap(filled(variant("plain20"))), ANY, 0, ignore).variant.name == "plain20"


def test_the_stride_is_told_apart_by_the_outputs(bottleneck: ResNet) -> None:
    found = from_module(Foreign(bottleneck), VariantOptions(size=(32, 32)), 0, ignore)
    assert (found.variant.stride, found.variant.classes) == ("v1", 7)


def test_the_module_stays_as_it_is(resnet20: ResNet) -> None:
    foreign = Foreign(resnet20).double().train()
    resnet20.get_submodule("layer1").eval()
    modes = [module.training for module in foreign.modules()]
    before = {name: tensor.clone() for name, tensor in foreign.state_dict().items()}
    found = from_module(foreign, ANY, 0, ignore)
    assert [module.training for module in foreign.modules()] == modes
    torch.testing.assert_close(dict(foreign.state_dict()), before, rtol=0, atol=0)
    assert found.weights.state["fc.weight"].dtype == torch.float32
    resnet20.float().eval()


@pytest.mark.parametrize(
    ("then", "code", "word"),
    [
        (lambda logits: logits.softmax(1), "module-outputs-differ", "resnet20"),
        (lambda logits: logits * torch.nan, "module-outputs-differ", "inf"),
        (lambda logits: [logits], "module-output-shape", "list"),
        (lambda logits: logits[:, :3], "module-output-shape", "(2, 3)"),
        (lambda logits: logits.view(3, 3), "module-not-callable", "RuntimeError"),
    ],
)
def test_a_module_of_other_outputs_is_refused(
    resnet20: ResNet, then: Callable[[Tensor], object], code: str, word: str
) -> None:
    with refuses(ModelMismatchError, code, "Foreign", word):
        from_module(Foreign(resnet20, then), ANY, 0, ignore)


def test_a_module_that_cannot_be_copied_is_refused(resnet20: ResNet) -> None:
    foreign = Foreign(resnet20)
    foreign.lock = torch.zeros(1, requires_grad=True) * 2
    with refuses(ModelMismatchError, "module-not-callable", "Foreign"):
        from_module(foreign, ANY, 0, ignore)


def test_a_module_of_other_tensors_is_refused() -> None:
    with refuses(ModelMismatchError, "module-unrecognised", "Linear"):
        from_module(nn.Linear(3, 3), ANY, 0, ignore)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (VariantOptions("resnet32"), "other-variant"),
        (VariantOptions(classes=7), "other-variant"),
        (VariantOptions("plain20"), "module-outputs-differ"),
        (VariantOptions("resnet21"), "variant-unknown"),
    ],
)
def test_options_that_contradict_the_module_are_refused(resnet20: ResNet, options: VariantOptions, code: str) -> None:
    with pytest.raises(RexportError) as caught:
        from_module(resnet20, options, 0, ignore)
    assert caught.value.code == code
