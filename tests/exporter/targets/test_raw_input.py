from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx as onnx_library
import pytest

import runtimes
from exporter.data.opening import open_dataset
from exporter.export_request import ExportRequest
from exporter.models.variants import Variant, customise, variant
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.preprocessing.options import PreprocessingOptions
from exporter.targets import onnx_file, torch_program
from exporter.targets.raw_input import with_raw_input
from runtimes import Artifact, TensorSpec, parity
from runtimes.errors import UsageError
from runtimes.images.preprocessing import Preprocessing, fit_image, normalise
from tests.exporter.small import BASIC, BOTTLENECK, SILENT, export
from tests.refusals import refuses

IMAGES = 200


@pytest.fixture(scope="module", params=["fp32", "int8"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact]:
    """The bundled network with float and with raw input. Shared: not to be changed."""
    folder = tmp_path_factory.mktemp("raw")
    precision_spec = (
        PrecisionSpec(request.param, gate_images=20, calibration_images=50) if request.param == "int8" else FP32
    )
    wanted = [ExportRequest(variant("resnet20"), f"{folder}/{raw}.onnx", "bundled", raw=raw) for raw in (False, True)]
    floating, raw = (onnx_file.export(one, SILENT, precision_spec=precision_spec) for one in wanted)
    return floating, raw


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_pixels_give_the_same_predictions(two: tuple[Artifact, Artifact], backend: str) -> None:
    floating, raw = two
    assert floating.manifest is not None
    view = floating.manifest.preprocessing
    assert view is not None
    dataset = open_dataset("fashion-mnist", IMAGES)
    pixels = np.stack([fit_image(dataset.image(index), view) for index in range(IMAGES)])
    with runtimes.open(floating.path, backend) as first, runtimes.open(raw.path, backend) as second:
        expected = first.infer({"input": normalise(pixels, view)})["logits"]
        given = second.infer({"input": pixels})["logits"]
    np.testing.assert_array_equal(given.argmax(1), expected.argmax(1))
    if floating.manifest.precision == "fp32":
        np.testing.assert_allclose(given, expected, rtol=0, atol=5e-5 * np.abs(expected).max())


def test_a_classifier_takes_either(two: tuple[Artifact, Artifact]) -> None:
    images = [open_dataset("fashion-mnist").image(index) for index in range(30)]
    answers = []
    for artifact in two:
        with runtimes.Classifier.open(artifact.path) as classifier:
            answers.append([one.label for one in classifier.predict(images)])
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 3


@pytest.mark.parametrize(
    "row",
    [customise(BASIC, size=(16, 24)), customise(BOTTLENECK, in_channels=1)],
    ids=["not square", "grey"],
)
def test_the_input_is_bytes_with_channels_last(tmp_path: Path, row: Variant) -> None:
    statistics = PreprocessingOptions(mean=(0.3,), std=(0.2,)) if row.in_channels == 1 else PreprocessingOptions()
    artifact = onnx_file.export(ExportRequest(row, f"{tmp_path}/", raw=True, preprocessing=statistics), SILENT)
    assert artifact.manifest is not None
    assert artifact.manifest.inputs == (TensorSpec("input", "uint8", ("batch", *row.size, row.in_channels)),)
    assert artifact.vectors().inputs.dtype == np.uint8
    for backend in ("onnxruntime", "openvino"):
        with runtimes.open(artifact.path, backend) as runtime:
            assert runtime.inputs == artifact.manifest.inputs
            parity.check(runtime, artifact.vectors(), 5e-5, "PyTorch", "pixels")


def test_a_fixed_batch_of_pixels(tmp_path: Path) -> None:
    artifact = export(BASIC, tmp_path, batch=3, raw=True)
    (given,) = onnx_library.load(artifact.path).graph.input
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim] == [3, 16, 16, 3]


def test_nothing_to_normalise_with_is_refused(tmp_path: Path) -> None:
    with refuses(UsageError, "option-needs-statistics", "--input", "--mean", "--std", "4"):
        export(customise(BASIC, in_channels=4), tmp_path, raw=True)


BGR = PreprocessingOptions(channel_order="BGR", scale=1, mean=(104.0, 117.0, 124.0), std=(50.0, 60.0, 70.0))


@pytest.mark.parametrize("target", ["onnx", "pt2"])
def test_the_graph_orders_and_scales_the_channels(tmp_path: Path, target: str) -> None:
    request = ExportRequest(BASIC, f"{tmp_path}/", raw=True, preprocessing=BGR)
    artifact = (onnx_file if target == "onnx" else torch_program).export(request, SILENT)
    floats = export(BASIC, tmp_path / "floats", preprocessing=BGR)
    assert artifact.manifest is not None
    view = artifact.manifest.preprocessing
    assert view is not None
    assert (view.channel_order, view.scale) == ("BGR", 1)
    pixels = artifact.vectors().inputs
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (view.mean, view.std))
    swapped = (pixels[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - mean) / std
    with runtimes.open(floats.path, "onnxruntime") as runtime:
        expected = runtime.infer({"input": swapped})["logits"]
    for backend in ("onnxruntime", "openvino") if target == "onnx" else ("pytorch",):
        with runtimes.open(artifact.path, backend) as runtime:
            given = runtime.infer({"input": pixels})["logits"]
        np.testing.assert_allclose(given, expected, rtol=0, atol=5e-5 * np.abs(expected).max())


def test_a_forgotten_order_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(graph: onnx_library.ModelProto, view: Preprocessing) -> onnx_library.ModelProto:
        return with_raw_input(graph, replace(view, channel_order="RGB"))

    monkeypatch.setattr(onnx_file, "with_raw_input", forget)
    with pytest.raises(runtimes.errors.CheckFailedError, match="parity failed"):
        export(BASIC, tmp_path, raw=True, preprocessing=BGR)


def test_a_forgotten_normalisation_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate of raw input is parity: the test vectors are pixels, their logits those of normalised images."""

    def forgetful(graph: onnx_library.ModelProto, *_: object) -> onnx_library.ModelProto:
        for tensor in graph.graph.initializer:
            if tensor.name == "pixels.shift":
                tensor.CopyFrom(onnx_library.numpy_helper.from_array(np.zeros(3, np.float32), tensor.name))
        return graph

    monkeypatch.setattr(onnx_file, "with_raw_input", lambda graph, view: forgetful(with_raw_input(graph, view)))
    with pytest.raises(runtimes.errors.CheckFailedError, match="parity failed"):
        export(BASIC, tmp_path, raw=True)
