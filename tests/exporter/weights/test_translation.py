"""Checkpoints of other programs: each loads to the same numbers, or is refused in one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from exporter.models import resnet
from exporter.models.variants import VARIANTS
from exporter.weights import entries, matching, translation
from exporter.weights.entries import Selection
from exporter.weights.layouts import LAYOUTS
from exporter.weights.recognition import VariantOptions, from_checkpoint, recognise
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, RexportError, UsageError
from tests.exporter.small import BOTTLENECK, reason_codes
from tests.exporter.weights.foreign_layouts import (
    REFUSED,
    WRITTEN,
    Refused,
    Written,
    averaged,
    detectron2,
    hugging_face,
    prefixed,
    under,
)
from tests.refusals import refuses

ANY = VariantOptions()


@pytest.fixture(scope="module", autouse=True)
def _small_variant() -> Iterator[None]:
    """A small network among the variants, so that its files are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, BOTTLENECK.name, BOTTLENECK)
        yield


def ignore(notice: str | Reason) -> None:
    del notice


def state_of() -> dict[str, Tensor]:
    model = resnet.build(BOTTLENECK)
    resnet.initialise(model, 5)
    resnet.settle_statistics(model, 5)
    return model.state_dict()


STATE = state_of()


def saved(written: Written, folder: Path) -> Path:
    torch.save(written.content(written.state(STATE)), folder / "best.pth")
    return folder / "best.pth"


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_the_same_numbers_are_read(written: Written, tmp_path: Path) -> None:
    notices: list[str | Reason] = []
    found = from_checkpoint(saved(written, tmp_path), ANY, notices.append)
    record = found.weights.record
    assert record.sha256 == matching.state_digest(STATE)
    assert found.variant.name == BOTTLENECK.name
    assert record.layout is not None
    assert written.layout in record.layout
    assert (record.key, record.prefix, record.assumed) == (written.key, written.prefix, ("stride", "size"))
    assert reason_codes(notices) == list(written.codes)


TRUNKS = {name: refused for name, refused in REFUSED.items() if refused.code == "classifier-missing"}


@pytest.mark.parametrize("refused", TRUNKS.values(), ids=TRUNKS)
def test_a_trunk_is_read_where_no_classifier_is_needed(refused: Refused, tmp_path: Path) -> None:
    found = from_checkpoint(saved(refused.written, tmp_path), ANY, ignore, Selection(headless=True))
    assert found.variant == replace(BOTTLENECK, classes=0)
    assert list(found.weights.state) == [name for name in STATE if not name.startswith("fc.")]
    for name, value in found.weights.state.items():
        torch.testing.assert_close(value, STATE[name])


def test_no_tensor_of_a_trunk_is_filled_in(tmp_path: Path) -> None:
    state = {name: value for name, value in STATE.items() if not name.startswith(("fc.", "layer2.0.bn1."))}
    torch.save(state, tmp_path / "best.pth")
    with refuses(ModelMismatchError, "checkpoint-unrecognised"):
        from_checkpoint(tmp_path / "best.pth", ANY, ignore, Selection(headless=True))


def test_a_trunk_takes_no_number_of_classes(tmp_path: Path) -> None:
    path = saved(TRUNKS["VICReg"].written, tmp_path)
    with refuses(ModelMismatchError, "other-variant", "without a classifier", "--num-classes"):
        from_checkpoint(path, VariantOptions(classes=10), ignore, Selection(headless=True))


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_the_rest_is_refused_in_one_line(refused: Refused, tmp_path: Path) -> None:
    with pytest.raises(RexportError) as caught:
        from_checkpoint(saved(refused.written, tmp_path), ANY, ignore)
    assert caught.value.code == refused.code
    assert [name for name in ("best.pth", *refused.names) if name not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


RENAMED = {
    "timm's pre-activation networks": {
        "stem.conv.weight": "conv1.weight",
        "stages.0.blocks.0.conv1.weight": "layer1.0.conv1.weight",
        "stages.2.blocks.10.norm3.running_var": "layer3.10.bn3.running_var",
        "stages.1.blocks.0.downsample.conv.weight": "layer2.0.downsample.0.weight",
        "norm.bias": "norm.bias",
        "head.fc.weight": "fc.weight",
    },
    "WideResNet-pytorch": {
        "conv1.weight": "conv1.weight",
        "block1.layer.0.conv1.weight": "layer1.0.conv1.weight",
        "block2.layer.3.bn2.bias": "layer2.3.bn2.bias",
        "block2.layer.0.convShortcut.weight": "layer2.0.downsample.0.weight",
        "bn1.running_mean": "norm.running_mean",
        "fc.weight": "fc.weight",
    },
}
"""The names of networks that activate before they convolve, by the layout."""


@pytest.mark.parametrize("title", RENAMED)
def test_names_of_other_networks_are_translated(title: str) -> None:
    names = RENAMED[title]
    sizes = {name: (4 if "fc" in name else 8, 8, 1, 1) if "weight" in name else (8,) for name in names}
    state = {name: torch.ones(size) for name, size in sizes.items()}
    found = translation.translate(state)
    assert found.layout is not None
    assert (found.layout.title, list(found.tensors)) == (title, list(names.values()))
    assert found.tensors["fc.weight"].shape == (4, 8)  # a 1x1 convolution is a linear layer


def test_every_layout_has_a_file() -> None:
    files = (*WRITTEN.values(), *(refused.written for refused in REFUSED.values()))
    words = {written.layout for written in files if written.layout} | RENAMED.keys()
    assert [row.title for row in LAYOUTS if not any(word in row.title for word in words)] == []


def test_a_chosen_entry_is_read(tmp_path: Path) -> None:
    path = saved(Written("", content=averaged("model", "ema")), tmp_path)
    found = from_checkpoint(path, ANY, ignore, Selection("ema"))
    assert found.weights.record.key == "ema"
    torch.testing.assert_close(found.weights.state["fc.bias"], STATE["fc.bias"] + 1)


@pytest.mark.parametrize("key", ["emma", "model.fc", "epoch", ""])
def test_an_absent_entry_is_refused_with_those_there_are(key: str, tmp_path: Path) -> None:
    path = saved(Written("", content=averaged("model", "ema")), tmp_path)
    with refuses(UsageError, "weights-entry-absent", "best.pth", repr(key), "--key model or --key ema"):
        from_checkpoint(path, ANY, ignore, Selection(key))


def test_an_entry_of_an_unusual_name_is_named(tmp_path: Path) -> None:
    path = saved(Written("", content=lambda state: {"epoch": 3, "student_net": {"weights": state}}), tmp_path)
    with refuses(ArtifactError, "tensors-missing", "--key student_net.weights"):
        from_checkpoint(path, ANY, ignore)
    assert from_checkpoint(path, ANY, ignore, Selection("student_net.weights")).variant.name == BOTTLENECK.name


def test_two_entries_are_refused_by_name(tmp_path: Path) -> None:
    path = saved(Written("", content=lambda state: {"model": state, "net": state}), tmp_path)
    with refuses(ModelMismatchError, "weights-entries-ambiguous", "--key model or --key net"):
        from_checkpoint(path, ANY, ignore)


@pytest.mark.parametrize("prefix", ["ema_model.module.", "ema_model.module"])
def test_a_chosen_prefix_leaves_the_rest_out(prefix: str, tmp_path: Path) -> None:
    both = {f"model.{name}": tensor for name, tensor in STATE.items()}
    both |= {f"ema_model.module.{name}": tensor + 1 for name, tensor in STATE.items()}
    torch.save(both, tmp_path / "best.pth")
    notices: list[str | Reason] = []
    found = from_checkpoint(tmp_path / "best.pth", ANY, notices.append, Selection(prefix=prefix))
    torch.testing.assert_close(found.weights.state["fc.bias"], STATE["fc.bias"] + 1)
    assert found.weights.record.prefix == "ema_model.module."
    assert reason_codes(notices) == ["tensors-left-out", "variant-recognised"]
    assert f"{len(STATE)} tensors" in str(notices[0])


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_copy_inside_a_chosen_prefix_is_left_out(prefix: str, tmp_path: Path) -> None:
    both = {f"{prefix}{name}": tensor for name, tensor in STATE.items()}
    both |= {f"{prefix}ema.{name}": tensor + 1 for name, tensor in STATE.items()}
    torch.save(both, tmp_path / "best.pth")
    with refuses(ModelMismatchError, "weights-copies-ambiguous", f"--strip-prefix {prefix or repr('')} or"):
        from_checkpoint(tmp_path / "best.pth", ANY, ignore)
    for chosen, offset in ((prefix, 0), (f"{prefix}ema.", 1)):
        found = from_checkpoint(tmp_path / "best.pth", ANY, ignore, Selection(prefix=chosen))
        torch.testing.assert_close(found.weights.state["fc.bias"], STATE["fc.bias"] + offset)


def test_a_chosen_prefix_keeps_the_head_beside_it(tmp_path: Path) -> None:
    path = saved(WRITTEN["Lightning, head beside the backbone"], tmp_path)
    found = from_checkpoint(path, ANY, ignore, Selection(prefix="backbone."))
    assert found.weights.record.sha256 == matching.state_digest(STATE)


def test_an_absent_prefix_is_refused_with_the_beginnings(tmp_path: Path) -> None:
    path = saved(Written("", prefixed("model.")), tmp_path)
    with refuses(UsageError, "prefix-absent", "'modle.'", "begin with model."):
        from_checkpoint(path, ANY, ignore, Selection(prefix="modle"))


def test_a_prefix_of_an_unknown_layout_is_stripped() -> None:
    state = {"a.stem.conv.weight": torch.ones(1), "b.x": torch.ones(1)}
    found = translation.translate(state, "a.")
    assert (list(found.tensors), found.left_out) == (["stem.conv.weight"], {translation.OUTSIDE: ("b.x",)})


def test_wrappers_of_an_unknown_layout_are_stripped() -> None:
    found = translation.translate({"module.model.stem.conv.weight": torch.ones(1), "module.model.x": torch.ones(1)})
    assert (list(found.tensors), found.prefix, found.layout) == (["stem.conv.weight", "x"], "module.model.", None)


@pytest.mark.parametrize(("chosen", "stride"), [(None, "v1"), ("v1.5", "v1.5"), ("v1", "v1")])
def test_a_layouts_stride_is_assumed_unless_chosen(chosen: str | None, stride: str, tmp_path: Path) -> None:
    notices: list[str | Reason] = []
    path = saved(Written("", detectron2, under("model")), tmp_path)
    found = from_checkpoint(path, VariantOptions(stride=chosen), notices.append)  # type: ignore[arg-type]
    assert found.variant.stride == stride
    assert ("stride" in found.weights.record.assumed) == (chosen is None)
    codes = ["layout-remark", "variant-recognised", *(["stride-from-layout"] if chosen is None else [])]
    assert reason_codes(notices) == codes


def test_what_is_assumed_is_said_with_its_option(tmp_path: Path) -> None:
    notices: list[str | Reason] = []
    path = saved(Written(""), tmp_path)
    from_checkpoint(path, ANY, notices.append)
    from_checkpoint(path, VariantOptions(size=(16, 24), stride="v1"), notices.append)
    for value in ("v1.5 (--stride)", "32x32 (--size)"):
        assert value in str(notices[0])
    assert "assumed" not in str(notices[1])


def test_names_that_become_one_are_refused() -> None:
    state = {**STATE, "layer1.0.shortcut.0.weight": STATE["layer1.0.downsample.0.weight"]}
    with refuses(ModelMismatchError, "names-collide", "layer1.0.downsample.0.weight"):
        translation.translate(state)


def test_a_linear_bias_beside_the_classifier_is_unexpected() -> None:
    state = {**STATE, "linear.bias": STATE["fc.bias"]}
    with refuses(ModelMismatchError, "tensors-unexpected", "linear.bias"):
        recognise(translation.translate(state), ANY, Path("best.pth"))


# What is damaged never loads ------------------------------------------------------------------------------------------

ESSENTIAL = sorted(name for name in STATE if "num_batches" not in name)
DAMAGES = ("remove", "{}x", "x.{}", "model.{}", "criterion.{}", "ema.{}", "module.{}", "reshape")
NAMINGS = {"own": lambda name: name, "wrapped": prefixed("module."), "hugging face": hugging_face}


@settings(deadline=None, max_examples=50, derandomize=True)
@example("own", {"conv1.weight": "module.{}", "layer1.0.conv1.weight": "module.{}"}, False)
@example("wrapped", {"fc.weight": "{}x", "fc.bias": "remove"}, True)
@given(
    naming=st.sampled_from(sorted(NAMINGS)),
    damages=st.dictionaries(st.sampled_from(ESSENTIAL), st.sampled_from(DAMAGES), min_size=1, max_size=6),
    named=st.booleans(),
)
def test_damaged_weights_never_load(naming: str, damages: dict[str, str], named: bool) -> None:
    damaged = {}
    for name, tensor in STATE.items():
        how, foreign = damages.get(name, "{}"), NAMINGS[naming](name)
        if how == "reshape":
            damaged[foreign] = tensor.unsqueeze(-1)
        elif how != "remove":
            damaged[how.format(foreign)] = tensor
    with pytest.raises(RexportError):
        fit(damaged, named)


def test_the_property_tests_weights_load_undamaged() -> None:
    for rename in NAMINGS.values():
        renamed = {rename(name): tensor for name, tensor in STATE.items()}
        for named in (False, True):
            assert matching.state_digest(fit(renamed, named)) == matching.state_digest(STATE)


def fit(state: dict[str, Tensor], named: bool) -> dict[str, Tensor]:
    """The weights of the small variant, which is named or recognised."""
    stored = entries.choose({"state_dict": state}, None)
    translated = translation.translate(stored.tensors)
    row = BOTTLENECK if named else recognise(translated, ANY, Path("best.pth"))[0]
    return matching.fit(translated.tensors, row, ignore)
