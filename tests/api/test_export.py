from __future__ import annotations

import inspect
import logging
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rexport
from exporter.models.resnet import build, initialise, settle_statistics
from exporter.models.variants import variant
from exporter.weights.sources import BUNDLED_FOLDER
from rexport.wording import in_python
from runtimes.errors import RexportError
from tests.refusals import refuses

CHECKPOINT = BUNDLED_FOLDER / "resnet20-fashion-mnist.safetensors"
SENTENCES = Path(__file__).parents[1] / "sentences.toml"


def trained() -> nn.Module:
    model = build(variant("resnet20"))
    initialise(model, 1)
    settle_statistics(model, 1)
    return model


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def notices(monkeypatch: pytest.MonkeyPatch) -> list[logging.LogRecord]:
    """What went to the logger, and nowhere else."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", records.append)
    monkeypatch.setattr(logging.getLogger("rexport"), "handlers", [handler])
    monkeypatch.setattr(logging.getLogger("rexport"), "propagate", False)
    return records


def test_a_variant_lands_in_the_current_folder(capfd: pytest.CaptureFixture[str]) -> None:
    artifact = rexport.export("resnet20", weights="bundled")
    assert artifact.path == Path("resnet20.onnx")
    assert artifact.manifest is not None
    assert artifact.manifest.weights.origin == "bundled"
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_with_labels_and_preprocessing() -> None:
    labels = [f"class {number}" for number in range(10)]
    view = rexport.Preprocessing(resize=40, crop=(32, 32), pad=0, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    with refuses(rexport.ResourceError, "folder-missing", "out"):
        rexport.export(CHECKPOINT, "out/mine.pt2", variant="resnet20")
    artifact = rexport.export(CHECKPOINT, "mine.pt2", variant="resnet20", labels=labels, preprocessing=view, batch=2)
    manifest = artifact.manifest
    assert manifest is not None
    assert (manifest.format, manifest.labels, manifest.preprocessing) == ("pt2", tuple(labels), view)
    assert (manifest.weights.origin, manifest.weights.source) == ("file", CHECKPOINT.name)
    assert manifest.inputs[0].fixed_batch == 2


def test_a_recognised_checkpoint_is_announced(notices: list[logging.LogRecord]) -> None:
    model = build(variant("resnet18"))
    torch.save({"ema": {f"net.{name}": tensor for name, tensor in model.state_dict().items()}}, "best.pth")
    artifact = rexport.export("best.pth", "best.pt2", input_size=32, key="ema", strip_prefix="net.")
    assert artifact.manifest is not None
    assert (artifact.manifest.weights.key, artifact.manifest.weights.prefix) == ("ema", "net.")
    assert artifact.manifest.name == "resnet18"
    assert artifact.manifest.inputs[0].shape == ("batch", 3, 32, 32)
    recognised, assumed = notices
    assert (recognised.levelno, recognised.__dict__["code"]) == (logging.WARNING, "variant-recognised")
    assert "resnet18" in recognised.getMessage()
    assert (assumed.levelno, assumed.__dict__["code"]) == (logging.WARNING, "preprocessing-not-in-weights")
    for words in ("resized to 37, ", "centre crop of 32 x 32, ", "set it with transform=FILE or resize, "):
        assert words in assumed.getMessage()


def test_a_checkpoint_names_its_artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Any] = []
    monkeypatch.setattr("exporter.targets.onnx_file.export", lambda request, *_: requests.append(request))
    rexport.export(CHECKPOINT, "out/", variant="resnet20", stride=None, num_classes=10)
    (request,) = requests
    with request.target(".onnx") as target:
        assert target == Path("out", CHECKPOINT.stem + ".onnx")
    assert request.chosen == {"classes"}


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapped])
def test_a_module_gives_its_own_logits(wrap: Any) -> None:
    model = wrap(trained())
    artifact = rexport.export(model, "module.onnx")
    assert artifact.manifest is not None
    assert artifact.manifest.weights.origin == "module"
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    with rexport.open(artifact.path, "onnxruntime") as runtime, torch.inference_mode():
        np.testing.assert_allclose(
            runtime.infer({"input": images})["logits"], model(torch.from_numpy(images)), rtol=1e-3, atol=1e-4
        )


def test_a_narrow_artifact_of_a_module_cannot_be_rebuilt() -> None:
    artifact = rexport.export(trained(), "half.onnx", precision="fp16")
    report = rexport.benchmark(artifact, backends="pytorch", processes=1, duration=0.01, roofline=False)
    assert [row.result.status for row in report.rows] == ["skipped"]
    assert "PyTorch module" in report.verdict


def test_an_engine_needs_its_library() -> None:
    from runtimes.backends.tensorrt.flavors import FLAVORS

    if any(flavor.missing() is None for flavor in FLAVORS.values()):
        assert rexport.export("resnet20", "net.engine").path == Path("net.engine")
        return
    with pytest.raises(rexport.BackendUnavailableError):
        rexport.export("resnet20", "net.engine")


def test_progress_counts_the_steps() -> None:
    seen: list[tuple[float, float | None, str]] = []
    rexport.export("resnet20", "net.pt2", progress=lambda *told: seen.append(told))
    assert [done for done, _, _ in seen] == list(range(len(seen)))
    assert {total for _, total, _ in seen} == {None}
    assert "checking parity" in [description for _, _, description in seen]


def test_progress_of_the_command_says_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    rexport.export("resnet20", "net.pt2", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "random (seed 0)" in err


def test_an_error_of_the_callback_leaves_no_file() -> None:
    def fail(done: float, total: float | None, description: str) -> None:
        del total, description
        if done == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rexport.export("resnet20", "net.onnx", progress=fail)
    assert list(Path().iterdir()) == []


def test_a_path_without_a_suffix_is_a_folder() -> None:
    paths = [
        rexport.export("resnet20", path, seed=seed, overwrite=True).path for seed, path in enumerate(("new", "new/"))
    ]
    assert set(paths) == {Path("new/resnet20.onnx")}


def test_an_existing_file_is_replaced_only_on_request() -> None:
    first = rexport.export("resnet20", "net.pt2")
    with refuses(rexport.UsageError, "target-exists", "net.pt2", "overwrite=True"):
        rexport.export("resnet20", "net.pt2", seed=1)
    again = rexport.export("resnet20", "net.pt2", seed=1, overwrite=True)
    assert first.manifest is not None
    assert again.manifest is not None
    assert first.manifest.weights != again.manifest.weights


LINEAR = nn.Linear(2, 2)
GREY = rexport.Preprocessing(resize=None, crop=(28, 28), pad=0, mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize(
    ("model", "arguments", "kind", "code", "values"),
    [
        ("resnet21", {}, rexport.UsageError, "variant-unknown", ["resnet21", "resnet26"]),
        ("resnet20", {"variant": "resnet20"}, rexport.UsageError, "argument-given-twice", ["variant"]),
        ("resnet20", {"key": "ema"}, rexport.UsageError, "selection-needs-checkpoint", ["key", "strip_prefix"]),
        (CHECKPOINT, {"variant": "resnet20", "key": "ema"}, rexport.UsageError, "weights-entry-absent", ["'ema'"]),
        (CHECKPOINT, {"strip_prefix": "net"}, rexport.UsageError, "prefix-absent", ["net.", "conv1."]),
        (CHECKPOINT, {"weights": "random"}, rexport.UsageError, "argument-given-twice", ["weights"]),
        (3, {}, rexport.UsageError, "model-kind-unknown", ["int", "torch.nn.Module"]),
        (None, {}, rexport.UsageError, "model-kind-unknown", ["NoneType"]),
        (LINEAR, {}, rexport.ModelMismatchError, "module-not-callable", ["Linear", "input_size", "in_channels"]),
        (LINEAR, {"example": (3, 2)}, rexport.UsageError, "example-shape", ["(3, 2)"]),
        (LINEAR, {"example": (1, 3, 8, 8), "input_size": 8}, rexport.UsageError, "argument-given-twice",
         ["input_size"]),
        (LINEAR, {"example": (1, 3, 8, 8), "in_channels": 3}, rexport.UsageError, "argument-given-twice",
         ["in_channels"]),
        ("resnet20", {"example": (1, 3, 8, 8)}, rexport.UsageError, "example-needs-module", []),
        ("gone.pth", {}, rexport.ResourceError, "file-access-failed", ["gone.pth"]),
        (CHECKPOINT, {}, rexport.ModelMismatchError, "variant-ambiguous", ['variant="plain20"']),
        ("resnet20", {"path": "net.tflite"}, rexport.UsageError, "export-suffix-unknown", [".tflite", ".onnx"]),
        ("resnet20", {"path": "net.v2"}, rexport.UsageError, "export-suffix-unknown", ["net.v2", ".v2", ".pt2"]),
        ("resnet20", {"precision": "fp4"}, rexport.UsageError, "precision-unknown", ["fp4"]),
        ("resnet20", {"batch": 0}, rexport.UsageError, "count-below-one", ["batch", "0"]),
        ("resnet20", {"opset": -1}, rexport.UsageError, "count-below-one", ["opset", "-1"]),
        ("resnet20", {"batch": "2"}, rexport.UsageError, "count-below-one", ["batch", "'2'"]),
        ("resnet20", {"labels": {"a", "b"}}, rexport.UsageError, "labels-not-a-list", ["set"]),
        ("resnet20", {"labels": list(range(10))}, rexport.UsageError, "labels-not-strings", ["labels[0]"]),
        ("resnet20", {"path": "n.pt2", "opset": 20}, rexport.UsageError, "opset-needs-onnx", [".pt2"]),
        ("resnet20", {"num_classes": 0}, rexport.UsageError, "dimension-below-one", ["0"]),
        ("resnet20", {"labels": ["cat"]}, rexport.ModelMismatchError, "label-count-mismatch", ["1 labels", "10"]),
        ("resnet20", {"labels": "gone.txt"}, rexport.ResourceError, "file-access-failed", ["gone.txt"]),
        ("resnet20", {"raw_input": True, "in_channels": 4}, rexport.UsageError, "option-needs-statistics",
         ["raw_input=True", "mean and std"]),
        ("resnet20", {"activation": "tanh"}, rexport.UsageError, "activation-unknown", ["'tanh'", "sigmoid"]),
        ("resnet20", {"expect_sha256": "0" * 64}, rexport.UsageError, "selection-needs-checkpoint", ["expect_sha256"]),
        (CHECKPOINT, {"variant": "resnet20", "expect_sha256": "0" * 64}, rexport.IntegrityError,
         "weights-digest-mismatch", ["0" * 64]),
        ("resnet20", {"mean": (0.5,) * 3}, rexport.UsageError, "statistics-incomplete", ["mean and std"]),
        ("resnet20", {"expect_top1": 90}, rexport.UsageError, "expected-top1-needs-data", ["expect_top1", "data"]),
        ("resnet20", {"expect_top1": 0.9}, rexport.UsageError, "expected-top1-invalid", ["expect_top1=90"]),
        ("resnet20", {"transform": "gone.json"}, rexport.ResourceError, "file-access-failed", ["gone.json"]),
        ("resnet20", {"transform": "gone.json", "preprocessing": GREY}, rexport.UsageError, "argument-given-twice",
         ["preprocessing"]),
        ("resnet20", {"preprocessing": GREY, "input_size": 32}, rexport.ModelMismatchError, "preprocessing-shape",
         ["1 channel ", "28 x 28", "32 x 32"]),
        ("resnet20", {"weights": "bundled", "num_classes": 7}, rexport.ModelMismatchError, "bundled-variant-differs",
         ['weights="imagenet"']),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_refused_in_words_of_python(
    model: Any, arguments: dict[str, Any], kind: type[RexportError], code: str, values: list[str]
) -> None:
    with refuses(kind, code, *values) as caught:
        rexport.export(model, **arguments)
    assert not re.search(r"(?<![\w-])--?[a-z]", str(caught.value))
    assert list(Path().iterdir()) == []


def test_single_fields_replace_those_of_the_preprocessing() -> None:
    artifact = rexport.export(
        "resnet20",
        "net.pt2",
        preprocessing=rexport.Preprocessing(40, (32, 32), 0, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0)),
        resize=(24, 20),
        crop=16,
        channels_order="BGR",
        antialias=False,
    )
    assert artifact.manifest is not None
    assert artifact.manifest.preprocessing == rexport.Preprocessing(
        (24, 20), (16, 16), 0, (0.3, 0.2, 0.1), (1.0, 1.0, 1.0), antialias=False, channel_order="BGR"
    )
    assert artifact.manifest.inputs[0].shape == ("batch", 3, 16, 16)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--force replaces it, -o names another file", "overwrite=True replaces it, path names another file"),
        ("use --num-classes 10 --shortcut B", "use num_classes=10 shortcut=B"),
        ("use resnet32 --num-classes 100", "use resnet32 num_classes=100"),
        ("--calibration DIR names a folder of them", "calibration=DIR names a folder of them"),
        ("leave --opset out", "leave opset out"),
        ("--resize 64x48", "resize=(64, 48)"),
        ("--scale 1", "scale=1"),
        ("--mean 0,0.5,0", "mean=(0, 0.5, 0)"),
        ("--no-antialias --channels-order BGR", "antialias=False channels_order=BGR"),
        ("--expect-top1 67.6", "expect_top1=67.6"),
        ("--precision int8", 'precision="int8"'),
        ("--output cam", 'outputs="cam"'),
        ("--key model.ema", 'key="model.ema"'),
        ("(--strip-prefix ema.)", '(strip_prefix="ema.")'),
        ("plain20 --weights best.pth", 'variant="plain20"'),
        ("or --weights imagenet", 'or weights="imagenet"'),
        ("rexport tensorrt x.onnx builds from it, --force replaces it", None),
        ("pip install --upgrade rexport", "pip install --upgrade rexport"),
        ("a v1--v2 pre-release, e-o", "a v1--v2 pre-release, e-o"),
    ],
)
def test_options_become_parameters_but_in_commands(text: str, words: str | None) -> None:
    assert in_python(text) == (words or "rexport tensorrt x.onnx builds from it, overwrite=True replaces it")


ELSEWHERE = {
    *("images", "profile", "strip", "debug", "by", "against", "dataset", "min_batch", "opt_batch", "max_batch"),
    *("gpus_per_worker", "image", "kind", "max_errors", "memory", "name", "ray", "refit", "sparse_weights"),
}
"""Options of commands that have no function here."""


def test_each_option_that_an_error_names_is_a_parameter() -> None:
    known = {*inspect.signature(rexport.export).parameters, *inspect.signature(rexport.benchmark).parameters}
    table = tomllib.loads(SENTENCES.read_text())
    sentences = [
        sentence
        for package in ("exporter", "runtimes")
        for value in table[package].values()
        for sentence in ([value] if isinstance(value, str) else value)
    ]
    named = {word for sentence in sentences for word in re.findall(r"--[a-z][a-z0-9-]+", sentence)}
    words = {in_python(option).partition("=")[0] for option in named}
    assert named
    assert words - known - ELSEWHERE <= {"input"}
