"""A state dict against a variant: what is taken, and what is refused and named."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from exporter.models import resnet
from exporter.models.variants import VARIANTS, Variant, customise
from exporter.weights import matching
from runtimes.errors import ArtifactError, ModelMismatchError, Reason
from tests.exporter.small import reason_codes
from tests.refusals import refuses

SMALL = VARIANTS["resnet20"]
"""Quick to build, and with every kind of layer."""


def state_of(variant: Variant = SMALL, seed: int = 3) -> dict[str, Tensor]:
    model = resnet.build(variant)
    resnet.initialise(model, seed)
    return model.state_dict()


def refuse_notices(line: str | Reason) -> None:
    raise AssertionError(f"an unexpected notice: {line}")


def fit(state: dict[str, Tensor], variant: Variant = SMALL) -> dict[str, Tensor]:
    return matching.fit(state, variant, refuse_notices)


def test_a_fitting_state_comes_back_whole_and_as_a_copy() -> None:
    state = state_of()
    fitted = fit(state)
    assert list(fitted) == list(state)
    for name, tensor in fitted.items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
        assert tensor.data_ptr() != state[name].data_ptr()
    resnet.build(SMALL).load_state_dict(fitted)


def test_the_order_is_the_modules_own_and_strides_are_plain() -> None:
    state = dict(reversed(state_of().items()))
    state["conv1.weight"] = state["conv1.weight"].to(memory_format=torch.channels_last)
    fitted = fit(state)
    assert list(fitted) == list(reversed(state))
    assert all(tensor.is_contiguous() for tensor in fitted.values())


def test_both_heads_are_one_too_many() -> None:
    state = state_of()
    with refuses(ModelMismatchError, "variant-unrecognised", "1 unexpected (linear.bias)"):
        fit(state | {"linear.bias": state["fc.bias"]})


def test_absent_counters_become_zero() -> None:
    state = {name: tensor for name, tensor in state_of().items() if not name.endswith("num_batches_tracked")}
    fitted = fit(state)
    assert int(fitted["bn1.num_batches_tracked"]) == 0
    assert fitted["bn1.num_batches_tracked"].dtype == torch.int64
    resnet.build(SMALL).load_state_dict(fitted)


# Mismatches -----------------------------------------------------------------------------------------------------------


def test_missing_and_unexpected_names_are_counted_and_five_named() -> None:
    state = state_of()
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("layer2.")}
    with refuses(ModelMismatchError, "variant-unrecognised", "resnet20", "30 missing", r"(extra\n)") as caught:
        fit(kept | {"extra\n": state["fc.bias"]})
    assert str(caught.value).count("layer2.") == 5


def test_a_renamed_layer_is_a_mismatch() -> None:
    state = state_of()
    state["layer9.0.conv1.weight"] = state.pop("layer1.0.conv1.weight")
    with refuses(
        ModelMismatchError, "variant-unrecognised", "1 missing (layer1.0.conv1.weight)", "1 unexpected (layer9"
    ):
        fit(state)


@pytest.mark.parametrize(
    ("given", "asked", "looks"),
    [
        ("resnet32", "resnet20", "resnet32"),
        ("resnet20", "plain56", "resnet20"),
        ("resnet20", "resnet50", "resnet20"),
        ("plain20", "resnet18", "resnet20"),
    ],
)
def test_another_variant_is_named(given: str, asked: str, looks: str) -> None:
    with refuses(ModelMismatchError, "other-variant", asked) as caught:
        fit(state_of(VARIANTS[given]), VARIANTS[asked])
    assert f"{looks} with 10 " in caught.value.what.partition(asked if asked != looks else ",")[0]
    assert caught.value.hint == f"use {looks}"


TWINS = {
    **{f"plain{depth}": f"resnet{depth}" for depth in (20, 32, 44, 56, 110)},
    "resnetaa50": "resnet50",
    "resnetblur50": "resnet50",
    "resnetaa50d": "resnet50d",
}
"""Networks without tensors of their own, and the first network in the list with the same tensors."""


def tensors_of(row: Variant) -> dict[str, Tensor]:
    """A state dict without numbers."""
    return {name: torch.empty(shape, device="meta") for name, shape in matching.shapes(row).items()}


def test_every_variant_is_recognised_from_its_shapes() -> None:
    asked = VARIANTS["resnet1202"]
    for row in VARIANTS.values():
        if row.name != asked.name:
            twin = TWINS.get(row.name, row.name)
            with refuses(ModelMismatchError, "other-variant", matching.describe_variant(replace(row, name=twin))):
                matching._check_shapes(tensors_of(row), {"fc.weight": (1, 1)}, asked)


def test_variants_with_the_same_tensors_are_all_recognised() -> None:
    for row in VARIANTS.values():
        found = matching.recognise(tensors_of(row))
        names = [other.name for other in found if other.shortcut == VARIANTS[other.name].shortcut]
        same = [name for name in VARIANTS if TWINS.get(name, name) == TWINS.get(row.name, row.name)]
        assert set(names) == set(same), row.name


def test_a_blur_without_tensors_is_not_chosen() -> None:
    found = matching.recognise(tensors_of(VARIANTS["resnet50"]))
    assert [row.name for row in found] == ["resnet50", "resnetaa50", "resnetblur50"]
    assert [row.name for row in matching.without_blur(found)] == ["resnet50"]
    assert matching.without_blur(found[1:]) == found[1:]
    plain = matching.recognise(tensors_of(VARIANTS["resnet20"]))
    assert matching.without_blur(plain) == plain


def test_a_file_is_recognised_by_arithmetic_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is built, and the tensors of each variant are listed once at most."""
    state = tensors_of(VARIANTS["resnet50"])
    matching.shapes.cache_clear()
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda *_: pytest.fail("a module is made"))
    with pytest.raises(pytest.fail.Exception):
        torch.nn.ReLU()
    assert matching.recognise(state)
    assert 0 < matching.shapes.cache_info().misses <= len(VARIANTS)


def test_other_classes_channels_and_shortcuts_are_named() -> None:
    changed = customise(SMALL, classes=7, in_channels=1, shortcut="B")
    described = (matching.describe_variant(changed), matching.describe_variant(SMALL))
    with refuses(ModelMismatchError, "other-variant", *described, "fc.weight", (7, 64), (10, 64)) as caught:
        fit(state_of(changed))
    assert caught.value.hint is not None
    assert caught.value.hint.split()[1:] == ["--num-classes", "7", "--in-channels", "1", "--shortcut", "B"]


def test_the_way_back_to_the_variants_own_classes_is_named() -> None:
    with refuses(ModelMismatchError, "other-variant", "(use --num-classes 10)"):
        fit(state_of(), customise(SMALL, classes=100))


@pytest.mark.parametrize("odd", [{}, {"fc.weight": torch.ones(3)}, {"fc.weight": torch.ones(3, 3)}])
def test_a_state_of_nothing_known_is_refused(odd: dict[str, Tensor]) -> None:
    with refuses(ModelMismatchError, "variant-unrecognised") as caught:
        fit(odd)
    assert re.search(r"9[67] missing", str(caught.value))


# Values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_converted_with_a_notice(dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state_of().items()}
    notices: list[str | Reason] = []
    fitted = matching.fit(state, SMALL, notices.append)
    assert reason_codes(notices) == ["weights-converted"]
    assert str(dtype).removeprefix("torch.") in str(notices[0])
    assert {tensor.dtype for tensor in fitted.values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(fitted["conv1.weight"], state["conv1.weight"].float(), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.complex64, torch.bool, torch.float8_e4m3fn])
def test_other_dtypes_than_plain_floats_are_refused(dtype: torch.dtype) -> None:
    state = state_of()
    state["layer1.0.conv1.weight"] = torch.zeros(16, 16, 3, 3).to(dtype)
    with refuses(ModelMismatchError, "tensor-dtype-wrong", "layer1.0.conv1.weight", "16", "64", str(dtype)[6:]):
        fit(state)


def test_a_counter_that_does_not_count_is_refused() -> None:
    state = state_of()
    state["bn1.num_batches_tracked"] = torch.tensor(0.5)
    with refuses(ModelMismatchError, "tensor-dtype-wrong", "bn1.num_batches_tracked", "float32"):
        fit(state)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    state = state_of()
    state["layer2.0.conv1.weight"][0, 0, 0, :2] = value
    with refuses(ArtifactError, "weights-not-finite", "layer2.0.conv1.weight", "2", "4,608"):
        fit(state)


def test_numbers_that_float32_cannot_hold_are_refused() -> None:
    state = state_of()
    state["fc.bias"] = torch.full((10,), 1e300, dtype=torch.float64)
    with refuses(ArtifactError, "weights-not-finite", "fc.bias", "10"):
        fit(state)


def test_a_negative_variance_is_refused() -> None:
    state = state_of()
    state["bn1.running_var"][3] = -1e-3
    with refuses(ArtifactError, "variance-negative", "bn1.running_var", "1"):
        fit(state)


def test_subnormal_layers_get_a_notice() -> None:
    state = state_of()
    state["layer1.0.conv1.weight"].fill_(1e-40)
    notices: list[str | Reason] = []
    matching.fit(state, SMALL, notices.append)
    assert reason_codes(notices) == ["weights-subnormal"]
    assert "1 tensors (layer1.0.conv1.weight)" in str(notices[0])


# The digest -----------------------------------------------------------------------------------------------------------


def test_the_digest_depends_on_names_shapes_and_values_alone() -> None:
    state = state_of()
    digest = matching.state_digest(state)
    assert len(digest) == 64
    state["bn1.num_batches_tracked"] += 1
    assert matching.state_digest(dict(reversed(state.items()))) == digest
    others = (
        state | {"fc.bias": state["fc.bias"] + 1},
        state | {"fc.bias": state["fc.bias"].reshape(2, 5)},
        state | {"fc.bias": state["fc.bias"].double()},
        {name if name != "fc.bias" else "fc.bios": tensor for name, tensor in state.items()},
    )
    assert digest not in {matching.state_digest(other) for other in others}
