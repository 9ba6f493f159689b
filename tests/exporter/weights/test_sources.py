"""The four origins of weights, each from its name to a network that runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from exporter.models import resnet
from exporter.models.variants import VARIANTS, Variant, customise
from exporter.weights import download, matching
from exporter.weights import sources as weights
from exporter.weights.entries import Selection
from runtimes.errors import (
    ArtifactError,
    IntegrityError,
    ModelMismatchError,
    Reason,
    ResourceError,
    UnsafeArtifactError,
    UsageError,
)
from runtimes.images.preprocessing import Preprocessing
from tests.exporter.small import reason_codes
from tests.refusals import refuses

REPO = Path(__file__).resolve().parents[3]
SMALL = VARIANTS["resnet20"]


def refuse_notices(line: str | Reason) -> None:
    raise AssertionError(f"an unexpected notice: {line}")


def state_of(variant: Variant = SMALL, seed: int = 3) -> dict[str, Tensor]:
    model = resnet.build(variant)
    resnet.initialise(model, seed)
    return model.state_dict()


def run_network(loaded: weights.LoadedWeights, variant: Variant) -> Tensor:
    model = resnet.build(variant)
    model.load_state_dict(loaded.state)
    with torch.inference_mode():
        logits: Tensor = model(torch.ones(2, variant.in_channels, *variant.size))
    assert bool(torch.isfinite(logits).all())
    return logits


# random ---------------------------------------------------------------------------------------------------------------


def test_random_weights_follow_the_seed_and_are_announced() -> None:
    notices: list[str | Reason] = []
    first, again, other = (weights.resolve("random", SMALL, seed, notices.append) for seed in (7, 7, 8))
    assert reason_codes(notices) == ["untrained"] * 3
    assert "seed 7" in str(notices[0])
    assert first.record == again.record
    assert first.record.sha256 != other.record.sha256
    assert (first.record.origin, first.record.trained, first.record.seed) == ("random", False, 7)
    assert (first.labels, first.preprocessing, first.dataset) == (None, None, None)
    torch.testing.assert_close(run_network(first, SMALL), run_network(again, SMALL), rtol=0, atol=0)


def test_random_weights_take_any_classes_and_channels() -> None:
    variant = customise(SMALL, classes=4, in_channels=1, size=(16, 24), shortcut="C")
    assert run_network(weights.resolve("random", variant, 0, print), variant).shape == (2, 4)


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with refuses(UsageError, "seed-out-of-range", "0", "9223372036854775807", seed):
        weights.resolve("random", SMALL, seed, refuse_notices)


# a file ---------------------------------------------------------------------------------------------------------------


def test_a_file_is_recorded_by_name_without_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(state_of(), path)
    loaded = weights.resolve(str(path), SMALL, 5, refuse_notices)
    assert (loaded.record.origin, loaded.record.trained, loaded.record.seed) == ("file", True, None)
    assert loaded.record.source == "mine.safetensors"
    assert loaded.record.sha256 == matching.state_digest(state_of())
    run_network(loaded, SMALL)


def test_the_recorded_part_of_a_file_is_read_again(tmp_path: Path) -> None:
    average = {f"net.{name}": tensor + 1 for name, tensor in state_of().items()}
    torch.save({"model": state_of(), "ema": average}, tmp_path / "w.pt")
    first = weights.from_file(str(tmp_path / "w.pt"), SMALL, refuse_notices, Selection("ema")).record
    assert (first.key, first.prefix) == ("ema", "net.")
    again = weights.from_file(str(tmp_path / "w.pt"), SMALL, refuse_notices, Selection(first.key, first.prefix)).record
    assert again == first


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(state_of(VARIANTS["resnet32"]), path)
    with refuses(ModelMismatchError, "other-variant", "w.pt", "resnet32", "10", "resnet20"):
        weights.resolve(str(path), SMALL, 0, refuse_notices)
    state = state_of()
    state["fc.bias"][0] = float("nan")
    torch.save(state, path)
    with refuses(ArtifactError, "weights-not-finite", "fc.bias", "w.pt", "1"):
        weights.resolve(str(path), SMALL, 0, refuse_notices)
    torch.save(resnet.build(SMALL), path)
    with refuses(UnsafeArtifactError, "pickle-calls-code", "exporter.models.resnet.ResNet", "w.pt"):
        weights.resolve(str(path), SMALL, 0, refuse_notices)


def test_a_misspelt_origin_gets_the_choices() -> None:
    with refuses(ResourceError, "file-access-failed", "imagnet", "did you mean imagenet?"):
        weights.resolve("imagnet", SMALL, 0, refuse_notices)
    with refuses(ResourceError, "file-access-failed", "mine", "random, bundled, imagenet"):
        weights.resolve("mine", SMALL, 0, refuse_notices)


def test_an_origin_is_known_in_any_case_unless_it_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert weights.resolve("Bundled", SMALL, 0, refuse_notices).record.origin == "bundled"
    (tmp_path / "Bundled").write_bytes(b"no weights, but a file")
    with refuses(ArtifactError, "weights-unrecognised", "Bundled"):
        weights.resolve("Bundled", SMALL, 0, refuse_notices)


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_published_cifar_weights_load_as_they_are(name: str) -> None:
    path = REPO.parent / "shared" / "data" / f"cifar10-{name}.th"
    if not path.exists():
        pytest.skip(f"{path.name} is not on this machine")
    run_network(weights.resolve(str(path), VARIANTS[name], 0, refuse_notices), VARIANTS[name])


# bundled --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with a bundle like the real one."""
    facts = json.loads((weights.BUNDLED_FOLDER / weights.BUNDLE).read_text())
    safetensors.torch.save_file(state_of(), tmp_path / facts["file"])
    facts["sha256"] = hashlib.sha256((tmp_path / facts["file"]).read_bytes()).hexdigest()
    (tmp_path / weights.BUNDLE).write_text(json.dumps(facts))
    return tmp_path


def test_bundled_weights_bring_all_that_is_known_of_them(bundle: Path) -> None:
    loaded = weights.load_bundled(SMALL, refuse_notices, bundle)
    assert (loaded.record.origin, loaded.record.trained) == ("bundled", True)
    assert loaded.record.source == "resnet20-fashion-mnist.safetensors"
    assert loaded.dataset == "fashion-mnist"
    assert loaded.labels is not None
    assert (len(loaded.labels), loaded.labels[9]) == (10, "Ankle boot")
    assert loaded.preprocessing is not None
    assert loaded.preprocessing.size == SMALL.size
    assert loaded.preprocessing.mean == (0.286,) * 3
    run_network(loaded, SMALL)


@pytest.mark.parametrize(
    "variant",
    [
        VARIANTS["resnet56"],
        VARIANTS["plain20"],
        customise(SMALL, classes=11),
        customise(SMALL, in_channels=1),
        customise(SMALL, shortcut="B"),
    ],
)
def test_bundled_weights_are_for_one_variant(bundle: Path, variant: Variant) -> None:
    with refuses(ModelMismatchError, "bundled-variant-differs", "resnet20", "10", "fashion-mnist"):
        weights.load_bundled(variant, refuse_notices, bundle)


def test_changed_bundled_weights_are_refused(bundle: Path) -> None:
    safetensors.torch.save_file(state_of(seed=4), bundle / "resnet20-fashion-mnist.safetensors")
    with refuses(IntegrityError, "bundled-weights-changed", bundle / "resnet20-fashion-mnist.safetensors"):
        weights.load_bundled(SMALL, refuse_notices, bundle)


def test_a_broken_bundle_is_named(bundle: Path) -> None:
    (bundle / weights.BUNDLE).write_text("{}")
    with pytest.raises(ArtifactError, match=r"resnet20-fashion-mnist\.json: .*'file'"):
        weights.load_bundled(SMALL, refuse_notices, bundle)


def test_the_weights_that_come_with_rexport_are_whole() -> None:
    if not (weights.BUNDLED_FOLDER / "resnet20-fashion-mnist.safetensors").exists():
        pytest.skip("the bundled weights are not in this checkout")
    loaded = weights.resolve("bundled", SMALL, 0, refuse_notices)
    assert loaded.record.trained
    run_network(loaded, SMALL)


# imagenet -------------------------------------------------------------------------------------------------------------


def test_imagenet_weights_come_with_labels_and_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = VARIANTS["resnet18"]
    torch.save(state_of(variant), tmp_path / "w.pt")
    digits = hashlib.sha256((tmp_path / "w.pt").read_bytes()).hexdigest()[:8]
    name = f"resnet18-{digits}.pth"
    (tmp_path / "w.pt").rename(tmp_path / name)
    monkeypatch.setitem(download.PUBLISHED, "resnet18", name)
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path))
    loaded = weights.resolve("imagenet", customise(variant, size=(112, 160)), 0, refuse_notices)
    assert (loaded.record.origin, loaded.record.trained, loaded.record.source) == ("imagenet", True, name)
    assert loaded.labels is not None
    assert (len(loaded.labels), loaded.labels[0], loaded.labels[207]) == (1000, "tench", "golden retriever")
    assert loaded.preprocessing is not None
    assert (loaded.preprocessing.resize, loaded.preprocessing.size) == ((128, 183), (112, 160))
    assert loaded.dataset == "imagenet"


@pytest.mark.parametrize(
    "variant",
    [
        SMALL,
        VARIANTS["plain18"],
        VARIANTS["resnet50d"],
        customise(VARIANTS["resnet50"], stride="v1"),
        customise(VARIANTS["resnet50"], classes=10),
        customise(VARIANTS["resnet50"], in_channels=1),
        customise(VARIANTS["resnet50"], shortcut="C"),
    ],
)
def test_imagenet_weights_are_for_torchvisions_variants(variant: Variant) -> None:
    with refuses(ModelMismatchError, "imagenet-variant-unpublished", *download.PUBLISHED):
        weights.resolve("imagenet", variant, 0, refuse_notices)


@pytest.mark.parametrize(
    ("size", "resize", "crop", "pad"),
    [
        ((32, 32), 28, (28, 28), 2),
        ((64, 64), 56, (56, 56), 4),
        ((32, 48), (28, 44), (28, 44), 2),
        ((1, 1), 1, (1, 1), 0),
    ],
)
def test_preprocessing_scales_with_the_input(
    size: tuple[int, int], resize: int | tuple[int, int], crop: tuple[int, int], pad: int
) -> None:
    base = Preprocessing(resize=28, crop=(28, 28), pad=2, mean=(0.5,), std=(0.5,))
    result = weights.scale_preprocessing(base, size)
    assert (result.resize, result.crop, result.pad, result.size) == (resize, crop, pad, size)
