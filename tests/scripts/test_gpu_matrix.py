from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.analysis.figures import Figures
from benchmarks.harness.eta import RunPlan
from benchmarks.machine.environment import environment
from benchmarks.records import store
from benchmarks.records.request import BenchmarkRequest, Configuration, PrecisionVariant, Refusal, Subject
from benchmarks.records.result import Result
from benchmarks.roofline.ceilings import Ceilings
from exporter.precision.table import PRECISIONS
from runtimes import Artifact
from runtimes.artifacts.formats import FORMATS
from runtimes.errors import BackendUnavailableError, Reason, UsageError
from runtimes.tensors import cuda
from scripts import gpu_matrix
from scripts.gpu_ledger import Ledger, LedgerPart, machine_of
from scripts.gpu_matrix import DRY, FULL, QUICK, Scope, Stage
from tests.benchmarks.nvml import Card, installed
from tests.benchmarks.results import EMPTY, MACHINE, ON_A_GPU, change_facts
from tests.benchmarks.searches import ScriptedHarness, subject
from tests.refusals import refuses

HERE = machine_of(MACHINE)
PART = LedgerPart("resnet20", "bundled", ("fp32", "fp16"), (1, 8), ("onnxruntime",), "0")


@pytest.fixture
def network(tmp_path: Path) -> Subject:
    def onnx(precision: str) -> PrecisionVariant:
        return PrecisionVariant(precision, Artifact(tmp_path / f"net.{precision}.onnx", FORMATS["onnx"], None))

    return subject(tmp_path, onnx("fp32"), onnx("fp16"))


class MatrixHarness(ScriptedHarness):
    """Measures nothing: the network is not exported, and each row is scripted. ``breaks_at`` is a row that fails."""

    def __init__(self, network: Subject, request: BenchmarkRequest, breaks_at: int | None = None) -> None:
        super().__init__({}, {})
        self.network, self.request, self.breaks_at = network, request, breaks_at
        self.planned: list[int] = []
        self.ceilings: list[Ceilings | None] = []
        self.measured_ceilings: Ceilings | None = None

    def __enter__(self) -> MatrixHarness:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is to be freed."""

    def make_subjects(self) -> tuple[Subject, ...]:
        return (self.network,)

    def announce(self, plan: RunPlan) -> None:
        self.planned.append(plan.configurations)

    def measure_ceilings(self, known: Ceilings | None = None) -> Ceilings | None:
        self.ceilings.append(known)
        return known or self.measured_ceilings

    def row(self, configuration: Configuration) -> Result:
        if len(self.asked) + 1 == self.breaks_at:
            raise UsageError("enough")
        return change_facts(super().row(configuration), subject="resnet20", environment=self.machine)

    machine = MACHINE


REQUEST = BenchmarkRequest(("resnet20",), ("onnxruntime",), "pytorch", precisions=("fp32", "fp16"))


@pytest.fixture
def harness(network: Subject) -> MatrixHarness:
    return MatrixHarness(network, REQUEST)


def measured(ledger: Ledger, harness: MatrixHarness, rows: int | None = None) -> list[Result]:
    """So many rows at most, as if the time were over then."""
    found: list[Result] = []
    late = lambda: rows is not None and len(found) >= rows  # noqa: E731
    for row in gpu_matrix.measure_part(PART, harness, ledger, late):  # type: ignore[arg-type]
        found.append(row)
    return found


def test_a_batch_after_the_other_and_the_reference_first(network: Subject) -> None:
    found = gpu_matrix.list_wanted(network, REQUEST, (1, 8))
    assert [(one.pair.backend.name, one.pair.typed.precision, one.batch) for one in found] == [
        ("pytorch", "fp32", 1),
        ("onnxruntime", "fp32", 1),
        ("onnxruntime", "fp16", 1),
        ("pytorch", "fp32", 8),
        ("onnxruntime", "fp32", 8),
        ("onnxruntime", "fp16", 8),
    ]
    assert all(one.cuda_graphs for one in found)


def test_on_a_gpu_one_image_is_measured_without_cuda_graphs_too(network: Subject) -> None:
    programs = (PrecisionVariant("fp16", Refusal("skipped", Reason("none", "none")), "pt2"),)
    request = replace(REQUEST, device="cuda", backends=("onnxruntime", "inductor", "pytorch-cudagraphs"))
    found = gpu_matrix.list_wanted(replace(network, programs=programs), request, (1, 64))
    without = [(one.pair.backend.name, one.pair.typed.precision, one.batch) for one in found if not one.cuda_graphs]
    assert {name for name, _, _ in without} == {"onnxruntime", "inductor"}
    assert {batch for _, _, batch in without} == {1}
    graphed = {(one.pair.backend.name, one.pair.typed.precision, one.batch) for one in found if one.cuda_graphs}
    assert set(without) <= graphed
    assert (found[0].pair.backend.name, found[0].pair.typed.precision, found[0].batch) == ("pytorch", "fp32", 1)


def test_a_network_is_measured_whole_and_then_complete(tmp_path: Path, harness: MatrixHarness) -> None:
    ledger = Ledger(tmp_path / "out", HERE)
    assert len(measured(ledger, harness)) == len(harness.asked) == 6
    assert harness.later == [5, 4, 3, 2, 1, 0]
    assert ledger.complete(PART)
    assert len(store.read(tmp_path / "out" / store.FILE_NAME)) == 6
    assert measured(ledger, harness) == []


def test_ceilings_are_measured_once_a_folder(tmp_path: Path, harness: MatrixHarness) -> None:
    """Those that are known with the same packages are taken; a failure to measure them is no knowledge."""
    harness.measured_ceilings = Ceilings("cuda", 2, missing="no library")
    measured(Ledger(tmp_path, HERE), harness)
    harness.measured_ceilings = Ceilings("cuda", 2, {"float32": 1e13}, method={"float32": "pytorch, 4096 x 4096"})
    measured(Ledger(tmp_path, HERE), harness)
    measured(Ledger(tmp_path, HERE), harness)
    assert harness.ceilings == [None, None, harness.measured_ceilings]
    other = replace(PART, installed="others")
    list(gpu_matrix.measure_part(other, harness, Ledger(tmp_path, HERE), lambda: True))  # type: ignore[arg-type]
    assert harness.ceilings[-1] is None


def test_slices_add_up_to_the_whole(tmp_path: Path, harness: MatrixHarness) -> None:
    folder = tmp_path / "out"
    assert len(measured(Ledger(folder, HERE), harness, rows=2)) == 2
    assert not Ledger(folder, HERE).complete(PART)
    rest = measured(Ledger(folder, HERE), harness)
    names = [(each.identity.backend, each.identity.precision, each.identity.batch) for each in rest]
    assert names == [
        ("pytorch", "fp32", 1),  # again, for what is left of its batch
        ("onnxruntime", "fp16", 1),
        ("pytorch", "fp32", 8),
        ("onnxruntime", "fp32", 8),
        ("onnxruntime", "fp16", 8),
    ]
    ledger = Ledger(folder, HERE)
    assert ledger.complete(PART)
    assert len(ledger.by_network()) == 6
    assert len(harness.asked) == 7


def test_what_is_measured_lies_in_the_folder_at_once(tmp_path: Path, harness: MatrixHarness) -> None:
    ledger = Ledger(tmp_path / "out", HERE)
    found = gpu_matrix.measure_part(PART, harness, ledger, lambda: False)  # type: ignore[arg-type]
    next(found)
    assert len(store.read(tmp_path / "out" / store.FILE_NAME)) == 1
    del found
    assert not ledger.complete(PART)
    assert len(harness.asked) == 1


def test_the_whole_comparison_is_what_was_promised() -> None:
    assert {stage.variant for stage in FULL.stages} == {"resnet18", "resnet50", "resnet152", "resnet20"}
    assert {batch for stage in FULL.stages for batch in stage.batches} == {1, 8, 64, 256}
    whole = [stage for stage in FULL.stages if not stage.precisions]
    assert {stage.variant for stage in whole} == {stage.variant for stage in FULL.stages}
    part = gpu_matrix.part_of(whole[0], (), "0")
    assert part.precisions == tuple(PRECISIONS)
    assert {"fp32", "tf32", "fp16", "bf16", "int8", "fp8"} <= set(part.precisions)


def test_the_first_questions_come_first_and_in_turns() -> None:
    assert FULL.stages[: len(QUICK.stages)] == QUICK.stages
    assert [(stage.variant, stage.batches, stage.in_turns) for stage in QUICK.stages] == [
        ("resnet20", (1, 64), True),
        ("resnet50", (1, 64), True),
    ]
    assert [stage.variant for stage in DRY.stages] == ["resnet20"]


def test_a_batch_in_turns_is_one_trial(tmp_path: Path, harness: MatrixHarness) -> None:
    ledger = Ledger(tmp_path / "out", HERE)
    found = list(gpu_matrix.measure_part(PART, harness, ledger, lambda: False, in_turns=True))  # type: ignore[arg-type]
    assert [count for count, _ in harness.together] == [3, 3]
    assert len(found) == 6
    assert ledger.complete(PART)


def test_int8_is_for_tensorrt_on_a_gpu_alone() -> None:
    whole = LedgerPart("resnet50", "random", tuple(PRECISIONS), (1,), (), "0")
    assert gpu_matrix.request_for(whole, "cuda", FULL, ()).target == "tensorrt"
    assert gpu_matrix.request_for(whole, "cuda", FULL, ()).calibration_images == gpu_matrix.CALIBRATION_IMAGES
    assert gpu_matrix.request_for(whole, "cpu", FULL, ()).target == "cpu"
    assert gpu_matrix.request_for(replace(whole, precisions=("fp32",)), "cuda", FULL, ()).target == "cpu"
    bundled = gpu_matrix.request_for(replace(whole, variant="resnet20", weights="bundled"), "cuda", FULL, ("tensorrt",))
    assert bundled.calibration_images == BenchmarkRequest().calibration_images
    assert (bundled.backends, bundled.weights, bundled.subjects) == (("tensorrt",), "bundled", ("resnet20",))


def test_a_request_has_the_scopes_measure() -> None:
    for scope in (FULL, QUICK, DRY):
        asked = gpu_matrix.request_for(PART, "cpu", scope, ())
        assert (asked.duration_s, asked.limit) == (scope.duration_s, scope.limit)
    assert QUICK.duration_s == FULL.duration_s
    assert FULL.limit == QUICK.limit == 2000


@pytest.mark.parametrize(
    ("results", "complete", "code"),
    [
        ([EMPTY], True, 0),
        ([EMPTY], False, 10),
        ([], False, 10),
        ([], True, 5),
        ([change_facts(EMPTY, status="skipped")], True, 5),
        ([EMPTY, change_facts(EMPTY, status="failed")], False, 1),
        ([EMPTY, change_facts(EMPTY, status="error")], True, 1),
    ],
)
def test_exit_codes(results: list[Result], complete: bool, code: int) -> None:
    assert gpu_matrix.exit_code(Figures.of_all(results), complete) == code


def test_a_network_that_is_not_measured_is_a_wrong_request(tmp_path: Path) -> None:
    result = CliRunner().invoke(gpu_matrix.main, [str(tmp_path), "--device", "cpu", "--network", "resnet50"])
    assert isinstance(result.exception, UsageError)
    assert result.exception.code == "network-not-measured"
    assert "'resnet50'" in result.exception.what


def test_without_a_gpu_nothing_is_exported_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, driver=False)
    monkeypatch.setattr(cuda, "missing", lambda: Reason("gpu-unusable", "no GPU"))
    with refuses(BackendUnavailableError, "gpu-unusable", "--device cpu"):
        gpu_matrix._run(FULL, "cuda", (), tmp_path / "out", None)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(cuda, "missing", lambda: None)
    assert gpu_matrix.no_gpu() is None
    monkeypatch.setattr(cuda, "missing", lambda: Reason("cuda-bindings-missing", "no cuda-bindings"))
    installed(monkeypatch, Card())
    assert gpu_matrix.no_gpu() is None  # PyTorch needs no more than the driver


def test_a_row_in_a_few_words() -> None:
    assert gpu_matrix._format_result(ON_A_GPU.result).split() == ["float16:", "0.410", "/", "0.390", "/", "0.321", "ms"]
    assert gpu_matrix._format_result(change_facts(EMPTY, status="error", reason="it broke")) == "  error: it broke"


def test_an_error_leaves_the_tables_of_what_was_measured(tmp_path: Path, network: Subject) -> None:
    scope = Scope((Stage("resnet20", "bundled", (1,), ("fp32", "fp16")),), 0.05)
    harness = MatrixHarness(network, REQUEST, breaks_at=3)
    harness.machine = environment()
    with pytest.raises(UsageError, match="enough"):
        gpu_matrix._run(scope, "cpu", ("onnxruntime",), tmp_path / "out", None, lambda *_: harness)  # type: ignore[arg-type]
    assert "Incomplete" in (tmp_path / "out" / "results.html").read_text()
    assert len(store.read(tmp_path / "out" / store.FILE_NAME)) == 2
