from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exporter.models.custom import CustomNetwork
from exporter.models.resnet import ResNet
from exporter.models.variants import Variant, customise, variant
from exporter.weights.entries import ANY_ENTRY, Selection
from exporter.weights.modules import ModuleWeights, NamedModule, from_module, load_state
from exporter.weights.recognition import VariantOptions
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, RexportError, UsageError
from tests.exporter.own_networks import CLASSES, SHAPE, FunctionalResNet, Vgg, filled
from tests.exporter.small import reason_codes
from tests.exporter.weights.test_recognition import ANY, ignore
from tests.exporter.weights.test_recognition import filled as filled_variant
from tests.refusals import refuses

SIZE = VariantOptions(size=SHAPE[2:], in_channels=SHAPE[1])


def network_of(
    module: nn.Module, options: VariantOptions, seed: int, notify: Callable[[str | Reason], None]
) -> ModuleWeights:
    return from_module(NamedModule.of(module), options, seed, notify)


class Foreign(nn.Module):
    """A module that is none of ours, computes by one of ours and then by a function."""

    def __init__(self, model: nn.Module, then: Callable[[Tensor], object] = lambda logits: logits) -> None:
        super().__init__()
        self.model = model
        self.then = then

    def forward(self, x: Tensor) -> object:
        return self.then(self.model(x))


@pytest.fixture(scope="module")
def resnet20() -> ResNet:
    return filled_variant(variant("resnet20"))


@pytest.fixture(scope="module")
def bottleneck() -> ResNet:
    return filled_variant(customise(variant("resnet50"), classes=7, size=(32, 32), stride="v1"))


def test_a_module_without_a_classifier_is_refused(resnet20: ResNet) -> None:
    headless = filled_variant(resnet20.variant)
    headless.fc = nn.Identity()  # type: ignore[assignment]
    with refuses(ModelMismatchError, "classifier-missing", "features"):
        network_of(headless, VariantOptions("resnet20"), 0, ignore)


def test_a_module_without_a_classifier_is_a_trunk(resnet20: ResNet) -> None:
    headless = filled_variant(resnet20.variant)
    headless.fc = nn.Identity()  # type: ignore[assignment]
    found = from_module(NamedModule.of(headless), VariantOptions("resnet20"), 0, ignore, headless=True)
    assert (found.network.name, found.network.classes) == ("resnet20", 0)
    assert not any(name.startswith("fc.") for name in found.weights.state)


def test_one_of_our_modules_is_its_own_variant(resnet20: ResNet) -> None:
    found = network_of(resnet20, ANY, 0, ignore)
    assert found.network == resnet20.variant
    assert (found.weights.record.origin, found.weights.record.source) == ("module", "ResNet")
    torch.testing.assert_close(found.weights.state, dict(resnet20.state_dict()))


@pytest.mark.parametrize("wrap", [Foreign, nn.DataParallel])
def test_a_foreign_module_is_told_apart_by_its_outputs(
    resnet20: ResNet, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    assert network_of(wrap(resnet20), ANY, 0, ignore).network.name == "resnet20"
    assert network_of(wrap(filled_variant(variant("plain20"))), ANY, 0, ignore).network.name == "plain20"


def test_the_stride_is_told_apart_by_the_outputs(bottleneck: ResNet) -> None:
    found = network_of(Foreign(bottleneck), VariantOptions(size=(32, 32)), 0, ignore)
    assert isinstance(found.network, Variant)
    assert (found.network.stride, found.network.classes) == ("v1", 7)


def test_the_module_stays_as_it_is(resnet20: ResNet) -> None:
    foreign = Foreign(resnet20).double().train()
    resnet20.get_submodule("layer1").eval()
    modes = [module.training for module in foreign.modules()]
    before = {name: tensor.clone() for name, tensor in foreign.state_dict().items()}
    found = network_of(foreign, ANY, 0, ignore)
    assert [module.training for module in foreign.modules()] == modes
    torch.testing.assert_close(dict(foreign.state_dict()), before, rtol=0, atol=0)
    assert found.weights.state["fc.weight"].dtype == torch.float32
    resnet20.float().eval()


@pytest.mark.parametrize(
    ("then", "code", "word"),
    [
        (lambda logits: logits * torch.nan, "module-not-finite", "noise"),
        (lambda logits: [logits], "module-output-shape", "list"),
        (lambda logits: logits[:2], "module-output-shape", "(2, 10)"),
        (lambda logits: logits.argmax(1), "module-output-shape", "int64"),
        (lambda logits: logits.view(7, 7), "module-not-callable", "RuntimeError"),
        (lambda logits: logits - logits.mean(0), "module-depends-on-batch", "batch"),
        (lambda logits: logits + torch.rand(1), "module-random", "images"),
    ],
)
def test_a_module_of_other_outputs_is_refused(
    resnet20: ResNet, then: Callable[[Tensor], object], code: str, word: str
) -> None:
    kind = ArtifactError if code == "module-not-finite" else ModelMismatchError
    with refuses(kind, code, "Foreign", word):
        network_of(Foreign(resnet20, then), ANY, 0, ignore)


def test_a_module_that_cannot_be_copied_is_refused(resnet20: ResNet) -> None:
    foreign = Foreign(resnet20)
    foreign.lock = torch.zeros(1, requires_grad=True) * 2
    with refuses(ModelMismatchError, "module-not-copied", "Foreign"):
        network_of(foreign, ANY, 0, ignore)


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
        network_of(resnet20, options, 0, ignore)
    assert caught.value.code == code


def test_a_module_of_other_outputs_is_exported_as_it_is(resnet20: ResNet) -> None:
    notices: list[str | Reason] = []
    found = network_of(
        Foreign(resnet20, lambda logits: logits.softmax(1)), VariantOptions(size=(32, 32)), 0, notices.append
    )
    assert isinstance(found.network, CustomNetwork)
    assert (found.network.name, found.network.classes, found.network.in_channels) == ("Foreign", 10, 3)
    assert reason_codes(notices) == ["module-in-training", "module-is-custom"]
    assert "resnet20" in str(notices[1])


def test_which_of_the_two_a_module_is_is_told(resnet20: ResNet) -> None:
    notices: list[str | Reason] = []
    network_of(resnet20, ANY, 0, notices.append)
    network_of(filled(Vgg).eval(), SIZE, 0, notices.append)
    assert reason_codes(notices) == ["module-is-variant", "module-is-custom"]
    assert "assumed" not in str(notices[1])


def test_the_shape_of_the_input_is_assumed_in_words() -> None:
    notices: list[str | Reason] = []
    module = nn.Sequential(nn.Conv2d(1, 2, 3, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    found = network_of(module, ANY, 0, notices.append)
    assert (found.network.in_channels, found.network.size, found.network.classes) == (1, (224, 224), 2)
    assert all(word in str(notices[0]) for word in ("224x224", "--size", "--in-channels"))
    small = network_of(module, VariantOptions(resized=64), 0, notices.append)
    assert small.network.size == (64, 64)
    assert "the size 64x64 assumed (--size)" in str(notices[1])


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("example_input_array", torch.zeros(SHAPE)), ("pretrained_cfg", {"input_size": SHAPE[1:]})],
)
def test_the_shape_that_a_module_declares_is_taken(attribute: str, value: object) -> None:
    notices: list[str | Reason] = []
    module = filled(Vgg).eval()
    setattr(module, attribute, value)
    for options in (ANY, VariantOptions(resized=16)):
        assert network_of(module, options, 0, notices.append).network.size == SHAPE[2:]
    assert f"of its {attribute} (--size)" in str(notices[0])


def test_a_module_in_training_is_exported_in_evaluation_mode() -> None:
    module = filled(Vgg)
    found = network_of(module, SIZE, 0, ignore)
    assert isinstance(found.network, CustomNetwork)
    assert (module.training, found.network.module.training) == (True, False)
    assert found.weights.record.trained


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        (VariantOptions(size=(24, 24), classes=7), ModelMismatchError, "module-class-count"),
        (VariantOptions(size=(24, 24), stride="v1"), UsageError, "option-needs-variant"),
        (VariantOptions(size=(24, 24), shortcut="A"), UsageError, "option-needs-variant"),
        (VariantOptions(size=(24, 24), in_channels=1), ModelMismatchError, "module-not-callable"),
        (VariantOptions("resnet20"), ModelMismatchError, "variant-unrecognised"),
    ],
)
def test_options_that_do_not_fit_a_module_are_refused(
    options: VariantOptions, kind: type[RexportError], code: str
) -> None:
    with refuses(kind, code):
        network_of(filled(FunctionalResNet), options, 0, ignore)


class Rounding(Vgg):
    """Enlarges the rounding of a batch of one image in float32 alone."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits * 1.01 if len(images) == 1 and images.dtype == torch.float32 else logits


def test_rounding_is_no_dependence_on_the_batch() -> None:
    assert network_of(filled(Rounding), SIZE, 0, ignore).network.classes == CLASSES


def test_weights_that_are_no_numbers_are_named() -> None:
    module = filled(Vgg)
    with torch.no_grad():
        module.get_parameter("classifier.1.bias")[0] = torch.nan
    with refuses(ArtifactError, "weights-not-finite", "classifier.1.bias"):
        network_of(module, SIZE, 0, ignore)


@pytest.mark.parametrize(
    ("stored", "selection"),
    [
        (lambda state: state, ANY_ENTRY),
        (lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, ANY_ENTRY),
        (lambda state: {"model": {}, "ema": state}, Selection("ema")),
        (lambda state: {f"net.{name}": tensor for name, tensor in state.items()} | {"loss": torch.ones(2)},
         Selection(prefix="net")),
        (lambda state: {name: tensor.half() if tensor.dim() else tensor for name, tensor in state.items()}, ANY_ENTRY),
    ],
    ids=["plain", "wrapped", "key", "prefix", "half"],
)  # fmt: skip
def test_a_file_gives_a_module_its_weights(tmp_path: Path, stored: Callable[..., object], selection: Selection) -> None:
    torch.save(stored(filled(Vgg, 1).state_dict()), tmp_path / "best.pth")
    named = NamedModule.of(filled(Vgg, 2))
    loaded = load_state(named, tmp_path / "best.pth", selection, ignore)
    assert loaded.record is not None
    assert (loaded.record.origin, loaded.record.source) == ("file", "best.pth")
    for name, tensor in filled(Vgg, 1).state_dict().items():
        torch.testing.assert_close(loaded.module.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)
    found = from_module(loaded, SIZE, 0, ignore)
    assert found.weights.record == loaded.record


def test_a_module_keeps_a_prefix_of_its_own(tmp_path: Path) -> None:
    wrapped = nn.ModuleDict({"model": filled(Vgg, 1)})
    torch.save(wrapped.state_dict(), tmp_path / "best.pth")
    load_state(NamedModule.of(wrapped), tmp_path / "best.pth", ANY_ENTRY, ignore)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"classifier.4.bias": None}, "weights-misfit", ["1 missing", "classifier.4.bias"]),
        ({"extra.weight": torch.ones(1)}, "weights-misfit", ["1 unexpected", "extra.weight"]),
        ({"classifier.4.bias": torch.ones(3)}, "weights-misfit", ["(3,)", f"({CLASSES},)"]),
        ({"classifier.4.bias": torch.ones(CLASSES, dtype=torch.int64)}, "tensor-dtype-wrong", ["classifier.4.bias"]),
    ],
    ids=["missing", "unexpected", "shape", "type"],
)
def test_weights_that_do_not_fit_a_module_are_named(
    tmp_path: Path, change: dict[str, Tensor | None], code: str, words: list[str]
) -> None:
    state = {**filled(Vgg).state_dict(), **change}
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "best.pth")
    with refuses(ModelMismatchError, code, "best.pth", *words):
        load_state(NamedModule.of(filled(Vgg)), tmp_path / "best.pth", ANY_ENTRY, ignore)
