from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx as onnx_library
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.precision import gate
from exporter.precision import table as precision
from exporter.precision.gate import GateSamples
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import PRECISIONS, Bounds, Material
from exporter.targets import onnx_file
from runtimes import Artifact
from runtimes.artifacts.manifest import Gate
from runtimes.errors import CheckFailedError
from tests.exporter.small import BASIC, SILENT, content, export, recording
from tests.refusals import refuses

BOUNDS = Bounds(error=0.1, agreement=0.98, drop=0.005)

Logits = NDArray[np.float32]


def logits(images: int, seed: int = 0, margin: float = 8.0) -> Logits:
    """Logits (images, 10) whose best class is ahead by ``margin``: decided beyond doubt."""
    random = np.random.default_rng(seed)
    values = random.uniform(0, 1, (images, 10)).astype(np.float32)
    values[np.arange(images), random.integers(0, 10, images)] = 1 + margin
    return values


def judge(reference: Logits, given: Logits, targets: NDArray[np.int64] | None = None) -> GateSamples:
    return GateSamples("some images", True, targets, reference, given)


def figures(reference: Logits, given: Logits, targets: NDArray[np.int64] | None = None) -> Gate:
    return gate.summarise_gate(judge(reference, given, targets), BOUNDS, "a runtime")


def flip_predictions(reference: Logits, count: int) -> Logits:
    """The first ``count`` images get the next class's answer."""
    given = reference.copy()
    given[:count] = np.roll(given[:count], 1, axis=1)
    return given


def test_one_output_can_change_its_class() -> None:
    reference, given = np.array([[-1.0], [2.0], [0.05]], np.float32), np.array([[-1.0], [-2.0], [-0.05]], np.float32)
    record = figures(reference, given)
    assert record.agreement == pytest.approx(1 / 3)
    assert (record.flips, record.near_ties) == (1, 1)


def test_probabilities_get_no_softmax() -> None:
    """0.6 against 0.4 is no near tie; a softmax would make it 0.55 against 0.45."""
    reference, given = np.array([[0.6, 0.4]], np.float32), np.array([[0.4, 0.6]], np.float32)
    samples = judge(reference, given)
    for judged, ties in ((samples, 1), (dataclasses.replace(samples, activation="none"), 0)):
        record = gate.summarise_gate(judged, BOUNDS, "a runtime")
        assert (record.flips, record.near_ties) == (1 - ties, ties)


def test_the_same_logits_cost_nothing() -> None:
    reference = logits(100)
    record = figures(reference, reference, reference.argmax(1))
    assert (record.error, record.agreement, record.flips, record.near_ties) == (0, 1, 0, 0)
    assert (record.top1, record.reference_top1, record.drop) == (1, 1, 0)
    assert gate.failures(record, BOUNDS, real=True) == []


def test_the_error_is_relative_to_the_logits_own_size() -> None:
    reference = logits(50)
    assert figures(reference, reference * np.float32(1.2)).error == pytest.approx(0.2, rel=1e-5)


def test_a_flip_of_an_undecided_image_is_a_near_tie() -> None:
    reference = logits(4)
    reference[0] = 0
    reference[0, :2] = 5.1, 5.0  # 0.52 and 0.47 of the probability
    reference[1] = 0
    reference[1, :2] = 6.0, 5.0  # 0.73 and 0.27
    given = reference.copy()
    given[:2, 1] += 2
    record = figures(reference, given)
    assert (record.flips, record.near_ties, record.agreement) == (1, 1, 0.5)


def test_without_labels_there_is_no_top1() -> None:
    record = figures(logits(5), logits(5))
    assert (record.top1, record.reference_top1, record.drop, record.drop_interval) == (None,) * 4
    assert "top-1" not in gate.describe_gate(record)


def test_too_large_an_error_fails() -> None:
    reference = logits(50)
    (reason,) = gate.failures(figures(reference, reference * np.float32(1.11)), BOUNDS, real=False)
    assert reason.code == "logits-error"
    assert "11.00 % (limit 10.00 %)" in reason.sentence


def test_a_logit_that_is_not_finite_fails() -> None:
    reference = logits(50)
    given = reference.copy()
    given[3, 3] = np.nan
    assert gate.failures(figures(reference, given), BOUNDS, real=False)


@pytest.mark.parametrize(("flips", "fails"), [(0, False), (20, False), (60, True)])
def test_flips_fail_where_they_are_certainly_too_many(flips: int, fails: bool) -> None:
    """Of 1,000 images with 2 % allowed: 20 may be, 60 cannot be by chance."""
    reference = logits(1000)
    loose = dataclasses.replace(BOUNDS, error=10)
    found = gate.failures(figures(reference, flip_predictions(reference, flips)), loose, real=True)
    assert [reason.code for reason in found] == ["predictions-flipped"] * fails
    assert all(f"{flips} of 1,000 " in reason.sentence for reason in found)
    assert gate.failures(figures(reference, flip_predictions(reference, flips)), loose, real=False) == []


@pytest.mark.parametrize(("lost", "fails"), [(5, False), (8, False), (40, True)])
def test_a_drop_fails_where_it_is_certainly_too_large(lost: int, fails: bool) -> None:
    reference = logits(1000)
    loose = Bounds(error=10, agreement=0, drop=0.005)
    record = figures(reference, flip_predictions(reference, lost), reference.argmax(1))
    assert record.drop == pytest.approx(lost / 1000)
    assert bool(gate.failures(record, loose, real=True)) == fails


def test_the_figures_stand_in_a_line() -> None:
    reference = logits(1000)
    record = figures(reference, flip_predictions(reference, 10), reference.argmax(1))
    line = gate.describe_gate(record).partition(f"{record.data}, ")[2]
    values = ("99.00 %", "10 confident", "0 borderline", "change -1.00 pp", "interval -1.64 to -0.35")
    assert [value for value in values if value not in line] == []


# The gate where it stands: between the conversion and the artifact.


def spoil_weight(name: str, by: float) -> precision.Apply:
    """The conversion to fp16, after which one weight is another."""

    def apply(graph: onnx_library.ModelProto, material: Material) -> onnx_library.ModelProto:
        result = PRECISIONS["fp16"].apply(graph, material)
        (tensor,) = (tensor for tensor in result.graph.initializer if tensor.name == name)
        values = numpy_helper.to_array(tensor).copy()
        values.flat[0] += by
        tensor.CopyFrom(numpy_helper.from_array(values, name))
        return result

    return apply


def register(monkeypatch: pytest.MonkeyPatch, row: precision.Precision) -> PrecisionSpec:
    monkeypatch.setitem(precision.PRECISIONS, row.name, row)
    return PrecisionSpec(row.name, gate_images=60)


def test_a_passed_gate_stands_in_the_manifest_and_is_noticed(tmp_path: Path) -> None:
    notices, listener = recording()
    request = ExportRequest(variant("resnet20"), f"{tmp_path}/", weights="bundled")
    artifact = onnx_file.export(request, listener, precision_spec=PrecisionSpec("fp16", gate_images=60))
    manifest = Artifact.read(artifact.path).manifest
    assert manifest is not None
    record = manifest.gate
    assert record is not None
    assert (record.images, record.data.split()[-1], record.drop) == (60, "fashion-mnist", 0)
    assert record.top1 == record.reference_top1
    assert record.bounds == dataclasses.asdict(PRECISIONS["fp16"].bounds or BOUNDS)
    assert f"fp16: {gate.describe_gate(record)}" in notices


def test_a_batch_fixed_above_the_gates_own_is_judged(tmp_path: Path) -> None:
    artifact = export(BASIC, tmp_path, batch=gate.BATCH + 4, precision_spec=PrecisionSpec("fp16"))
    assert artifact.manifest is not None
    assert artifact.manifest.gate is not None
    assert artifact.manifest.gate.error < 1e-3


def test_fp32_needs_no_gate(onnx_artifact: Artifact) -> None:
    assert onnx_artifact.manifest is not None
    assert onnx_artifact.manifest.gate is None


def test_a_failed_gate_leaves_no_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = PRECISIONS["fp16"]
    broken = dataclasses.replace(row, name="broken", apply=spoil_weight("fc.weight", 3.0), tolerance=10)
    with refuses(CheckFailedError, "gate-failed", "broken", "onnxruntime", "0.50 %"):
        export(BASIC, tmp_path, precision_spec=register(monkeypatch, broken))
    assert content(tmp_path) == {}


def test_a_failed_gate_leaves_the_older_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(BASIC, tmp_path)
    before = content(tmp_path)
    broken = dataclasses.replace(PRECISIONS["fp16"], name="broken", apply=spoil_weight("conv1.weight", 50.0))
    with pytest.raises(CheckFailedError, match="failed"):
        export(BASIC, tmp_path, precision_spec=register(monkeypatch, broken))
    assert content(tmp_path) == before


def test_a_drop_of_top1_is_caught_where_the_logits_look_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One class's bias alone is moved, by so much that the images of that class are lost."""
    broken = dataclasses.replace(
        PRECISIONS["fp16"],
        name="broken",
        apply=spoil_weight("fc.bias", -60.0),
        tolerance=100,
        bounds=Bounds(error=100, agreement=0, drop=0.003),
    )
    request = ExportRequest(variant("resnet20"), f"{tmp_path}/", weights="bundled")
    precision_spec = dataclasses.replace(register(monkeypatch, broken), gate_images=300)
    with refuses(CheckFailedError, "gate-failed", "top-1", "0.30"):
        onnx_file.export(request, SILENT, precision_spec=precision_spec)
    assert content(tmp_path) == {}
