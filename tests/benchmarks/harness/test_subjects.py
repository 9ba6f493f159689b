from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.analysis.figures import Figures
from benchmarks.harness import exports, subjects
from benchmarks.harness.run import exit_code, run
from benchmarks.records.request import BenchmarkRequest, PrecisionVariant, Refusal, RunListener, Subject
from benchmarks.records.result import Baseline, Result
from exporter import network
from exporter.export_request import ExportListener, ExportRequest
from exporter.models import resnet
from exporter.models.variants import VARIANTS, customise
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import PRECISIONS, Bounds
from exporter.targets import onnx_file, torch_program
from exporter.weights.sources import LoadedWeights
from runtimes import Artifact
from runtimes.errors import (
    BackendUnavailableError,
    CheckFailedError,
    CompatibilityError,
    InputError,
    IntegrityError,
    Reason,
    RexportError,
    UsageError,
)
from tests.benchmarks.scripts import SCRIPT, artifact, foreign, with_batch
from tests.exporter.datasets import folder_of, png
from tests.exporter.small import BASIC, SILENT
from tests.refusals import refuses
from tests.samples import copied

LISTENER = RunListener(lambda *_: None, lambda _: None)


def made(request: BenchmarkRequest, folder: Path) -> tuple[Subject, ...]:
    return subjects.subjects(request, folder, LISTENER)


def statuses(results: Sequence[Result]) -> dict[tuple[str, str | None], str]:
    return {(each.identity.backend, each.identity.precision): each.status for each in results}


@pytest.fixture
def impossible_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that nothing passes."""
    row = PRECISIONS["fp16"]
    monkeypatch.setitem(PRECISIONS, "fp16", replace(row, bounds=Bounds(error=1e-12, agreement=1.0, drop=0.0)))


def test_a_file_is_measured_as_itself_and_as_exported(onnx_artifact: Artifact, tmp_path: Path) -> None:
    request = BenchmarkRequest(subjects=(str(onnx_artifact.path),), precisions=("bf16", "fp32"))
    (subject,) = made(request, tmp_path)
    bf16, fp32 = subject.typed
    assert fp32.made == Artifact.read(onnx_artifact.path)
    assert isinstance(bf16.made, Artifact)
    assert bf16.made.path.name == "resnet20.bf16.onnx"
    assert bf16.made.manifest is not None
    assert (bf16.made.manifest.precision, bf16.precision, fp32.precision) == ("bf16", "bf16", "fp32")
    assert isinstance(subject.reference.made, Artifact)
    assert subject.reference.made.manifest is not None
    assert onnx_artifact.manifest is not None
    assert subject.reference.made.manifest.parent == onnx_artifact.manifest.sha256
    pairs = [(pair.backend.name, pair.typed.precision) for pair in subjects.pairs(subject, request)]
    assert pairs == [
        ("pytorch", "fp32"),
        ("onnxruntime", "bf16"),
        ("onnxruntime", "fp32"),
        ("openvino", "bf16"),
        ("openvino", "fp32"),
    ]


def test_a_checkpoint_is_exported_with_its_own_weights(tmp_path: Path) -> None:
    row = customise(VARIANTS["resnet20"], classes=3, shortcut="B")
    state = resnet.build(row).state_dict()
    torch.save({"model": state, "ema": {f"net.{name}": state[name] for name in state}}, tmp_path / "best.pth.tar")
    name = str(tmp_path / "best.pth.tar")
    request = BenchmarkRequest(subjects=(name,), key="ema", strip_prefix="net.", raw=True)
    wanted = exports.export_request(name, exports.ExportContext("best", tmp_path, request, LISTENER))
    assert (wanted.variant, wanted.name, wanted.raw) == (row, "best", True)
    assert isinstance(wanted.weights, LoadedWeights)
    assert (wanted.weights.record.key, wanted.weights.record.prefix) == ("ema", "net.")
    beside = replace(request, subjects=("resnet20", name), weights="bundled")
    place = exports.ExportContext("best", tmp_path, beside, LISTENER)
    assert exports.export_request("resnet20", place).weights == "bundled"
    assert exports.export_request(name, place).variant == row
    alone = replace(request, weights="bundled")
    with refuses(UsageError, "weights-given-twice", name):
        exports.export_request(name, exports.ExportContext("best", tmp_path, alone, LISTENER))


def test_a_digest_is_expected_of_a_checkpoint_alone(onnx_artifact: Artifact, tmp_path: Path) -> None:
    request = BenchmarkRequest((str(onnx_artifact.path), "resnet20"), expect_sha256="0" * 64)
    with refuses(UsageError, "expected-digest-without-file", onnx_artifact.path.name, "resnet20"):
        made(request, tmp_path)
    with refuses(UsageError, "expected-digest-without-file", "resnet20"):
        subjects.subject_alone(replace(request, subjects=("resnet20",)), tmp_path, LISTENER)
    path = tmp_path / "best.pth"
    torch.save(resnet.build(VARIANTS["resnet20"]).state_dict(), path)
    unread = replace(request, subjects=(str(onnx_artifact.path),), weights=str(path))  # an artifact has its own
    with refuses(UsageError, "expected-digest-without-file", onnx_artifact.path.name):
        made(unread, tmp_path)
    of_variant = replace(request, subjects=("resnet20",), weights=str(path))
    for of_checkpoint in (of_variant, replace(request, subjects=(str(path),))):
        with refuses(IntegrityError, "weights-digest-mismatch", "0" * 64):
            made(of_checkpoint, tmp_path)


@pytest.mark.parametrize("beside", [(), ("resnet20",)])
def test_guesses_about_the_data_are_printed_once(
    beside: tuple[str, ...], onnx_artifact: Artifact, tmp_path: Path
) -> None:
    """An artifact records no guesses of this run. An export prints those about its images itself."""
    folders = {f"{part}/{i}/a.png": png(i) for i in range(10) for part in ("train", "test")}
    data, notices = folder_of(tmp_path / "parts", folders), list[str | Reason]()
    request = BenchmarkRequest((str(onnx_artifact.path), *beside), backends=("onnxruntime",), data=str(data))
    subjects.subjects(request, tmp_path, RunListener(lambda *_: None, notices.append))
    codes = [notice.code for notice in notices if isinstance(notice, Reason)]
    assert codes.count("dataset-split-chosen") == 1
    assert codes.count("artifact-classes-by-position") == 1


def test_each_size_is_a_network_of_its_own(tmp_path: Path) -> None:
    path, notices = tmp_path / "mine.pth", list[str | Reason]()
    torch.save(resnet.build(customise(VARIANTS["resnet20"], classes=3, shortcut="B")).state_dict(), path)
    listener = RunListener(lambda *_: None, notices.append)
    request = BenchmarkRequest((str(path),), backends=("onnxruntime",), sizes=((16, 16), (12, 20), (16, 16)))
    square, wide = subjects.subjects(request, tmp_path, listener)
    assert [(each.name, each.size) for each in (square, wide)] == [
        ("mine.pth@16", (16, 16)),
        ("mine.pth@12x20", (12, 20)),
    ]
    assert square.weights == wide.weights
    for subject in (square, wide):
        artifact = subject.typed[0].made
        assert isinstance(artifact, Artifact)
        assert artifact.manifest is not None
        assert artifact.manifest.preprocessing is not None
        assert artifact.manifest.preprocessing.size == artifact.manifest.size == subject.size
    scaled = [str(notice) for notice in notices if isinstance(notice, Reason) and notice.code == "preprocessing-scaled"]
    assert [("mine.pth@16" in line, "16x16" in line, "12x20" in line) for line in scaled] == [
        (True, True, False),
        (False, False, True),
    ]


def test_a_model_file_has_one_size(onnx_artifact: Artifact, tmp_path: Path) -> None:
    request = BenchmarkRequest((str(onnx_artifact.path),), sizes=((24, 24),))
    for make in (subjects.subjects, subjects.subject_alone):
        with refuses(UsageError, "size-of-file-fixed", onnx_artifact.path.name, "--size"):
            make(request, tmp_path, LISTENER)
    with refuses(UsageError, "load-needs-one-subject", "2"):
        subjects.subject_alone(replace(request, sizes=((24, 24), (28, 28))), tmp_path, LISTENER)


@pytest.mark.usefixtures("impossible_fp16")
def test_a_variant_is_prepared_once_and_its_failed_gate_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[ExportRequest] = []
    honest = network.prepare

    def counted(request: ExportRequest, listener: ExportListener) -> network.Network:
        prepared.append(request)
        return honest(request, listener)

    monkeypatch.setattr(network, "prepare", counted)
    request = BenchmarkRequest(
        subjects=("resnet20",),
        backends=("onnxruntime", "openvino"),
        baseline="pytorch",
        precisions=("fp16", "bf16"),
        threads=1,
        limit=4,
        duration_s=0.02,
        processes=1,
        rounds=2,
        roofline=False,
    )
    rows = list(run(request, LISTENER))
    assert len(prepared) == 1
    assert statuses(rows) == {
        ("pytorch", "fp32"): "ok",
        ("onnxruntime", "fp16"): "failed",
        ("onnxruntime", "bf16"): "skipped",
        ("openvino", "fp16"): "failed",
        ("openvino", "bf16"): "ok",
    }
    by_name = {(each.result.identity.backend, each.result.identity.precision): each for each in Figures.of_all(rows)}
    assert "onnxruntime" in str(by_name["openvino", "fp16"].result.reason)
    assert "rbench-" not in str(by_name["onnxruntime", "bf16"].result.reason)
    ran = by_name["openvino", "bf16"]
    of = ran.result.identity
    assert "bfloat16" in (ran.result.ran.arithmetic or "")
    assert (of.subject, of.artifact, of.data, ran.top1_change) == ("resnet20", "resnet20.bf16.onnx", "noise", None)
    assert ran.agreement is not None
    reference = by_name["pytorch", "fp32"].result.identity
    assert (reference.artifact, reference.sha256[:1] != "") == ("resnet20.pt2", True)
    assert by_name["openvino", "fp16"].result.identity.sha256 == ""
    assert exit_code(Figures.of_all(rows), request) == 1


def test_what_a_file_takes_its_other_precisions_take_too(tmp_path: Path) -> None:
    """Raw pixels and a fixed batch; a network that bears no variant's name."""
    wanted = ExportRequest(BASIC, f"{tmp_path}/small.onnx", batch=4, raw=True)
    path = onnx_file.export(wanted, SILENT).path
    request = BenchmarkRequest(
        subjects=(str(path),),
        backends=("onnxruntime",),
        baseline="pytorch",
        precisions=("fp32", "fp16"),
        threads=1,
        duration_s=0.02,
        processes=1,
        rounds=2,
        roofline=False,
    )
    rows = Figures.of_all(list(run(request, LISTENER)))
    of = [figures.result.identity for figures in rows]
    assert {figures.result.status for figures in rows} == {"ok"}
    assert [(each.backend, each.precision, each.batch, "ok") for each in of] == [
        ("pytorch", "fp32", 4, "ok"),
        ("onnxruntime", "fp32", 4, "ok"),
        ("onnxruntime", "fp16", 4, "ok"),
    ]
    assert [each.artifact for each in of] == ["small-basic.pt2", "small.onnx", "small.fp16.onnx"]
    assert {row.images for row in rows} == {64}
    assert rows[1].agreement is not None
    assert rows[1].agreement.value == 1.0
    assert exit_code(rows, request) == 0


def test_a_network_that_cannot_be_made_again_is_a_row(onnx_artifact: Artifact, tmp_path: Path) -> None:
    spoilt = copied(onnx_artifact, tmp_path)
    for vectors in tmp_path.glob("*.npz"):
        vectors.unlink()
    request = BenchmarkRequest(subjects=(str(spoilt.path),), precisions=("fp32", "fp16"))
    (subject,) = made(request, tmp_path)
    own, fp16 = subject.typed
    assert isinstance(own.made, Artifact)
    assert isinstance(fp16.made, Refusal)
    assert fp16.made.status == "skipped"
    assert isinstance(subject.reference.made, Refusal)
    assert subject.reference.made.status == "skipped"
    assert str(fp16.made.reason) in str(subject.reference.made.reason)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CheckFailedError("gate"), "failed"),
        (CompatibilityError("x"), "skipped"),
        (UsageError("no images"), "skipped"),
        (BackendUnavailableError("no nncf"), "skipped"),
        (InputError("a broken image"), "error"),
        (RexportError("x"), "error"),
    ],
)
def test_what_an_export_raises_is_a_status(error: RexportError, status: str) -> None:
    assert exports._refusal(error) == Refusal(status, Reason(error.code, str(error)))  # type: ignore[arg-type]


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first, second = artifact(tmp_path / "a"), artifact(tmp_path / "b")
    other = artifact(tmp_path, name="other.fake")
    request = BenchmarkRequest(subjects=(str(first), str(second), str(other), str(first)))
    assert [subject.name for subject in made(request, tmp_path)] == [str(first), str(second), "other.fake"]


def test_a_file_without_a_manifest_has_no_other_precision(tmp_path: Path) -> None:
    request = BenchmarkRequest(subjects=(str(foreign(tmp_path)),), precisions=("int8",))
    with refuses(UsageError, "precision-needs-manifest", "net.fake", "--precision"):
        made(request, tmp_path)


def test_a_scripted_file_in_another_precision_is_skipped(tmp_path: Path) -> None:
    request = BenchmarkRequest(
        subjects=(str(artifact(tmp_path)),),
        precisions=("fp32", "int8"),
        duration_s=0.02,
        processes=1,
        rounds=2,
        roofline=False,
        threads=1,
    )
    found = statuses(list(run(request, LISTENER)))
    assert found["fake", "fp32"] == "ok"
    assert {status for (_, precision), status in found.items() if precision == "int8"} == {"skipped"}
    assert {"onnxruntime", "openvino"} <= {runtime for runtime, precision in found if precision == "int8"}


@pytest.mark.parametrize("options", [{"backends": ("onnxruntime",)}, {"baseline": "onnxruntime"}])
def test_a_backend_that_does_not_open_the_file_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    request = replace(BenchmarkRequest(subjects=(str(artifact(tmp_path)),)), **options)
    with refuses(UsageError, "format-not-opened", "onnxruntime"):
        made(request, tmp_path)


def measured_backends(request: BenchmarkRequest, subject: Subject) -> list[str]:
    return list(dict.fromkeys(pair.backend.name for pair in subjects.pairs(subject, request)))


@pytest.mark.parametrize(
    ("named", "baseline", "measured", "compared_with"),
    [
        ((), None, ["pytorch", "onnxruntime", "openvino"], Baseline("pytorch", "fp32")),
        ((), "ov", ["openvino", "onnxruntime", "pytorch"], Baseline("openvino", "fp32")),
        (("openvino", "onnxruntime"), None, ["openvino", "onnxruntime"], Baseline("openvino", "fp32")),
        (("onnxruntime", "pytorch"), None, ["pytorch", "onnxruntime"], Baseline("pytorch", "fp32")),
        (("onnxruntime", "openvino"), "pytorch", ["pytorch", "onnxruntime", "openvino"], Baseline("pytorch", "fp32")),
        (("onnxruntime", "openvino"), "openvino", ["openvino", "onnxruntime"], Baseline("openvino", "fp32")),
        (("inductor",), None, ["inductor"], Baseline("inductor", "fp32")),
    ],
)
def test_named_backends_are_compared_with_the_baseline(
    named: tuple[str, ...],
    baseline: str | None,
    measured: list[str],
    compared_with: Baseline,
    onnx_artifact: Artifact,
    tmp_path: Path,
) -> None:
    request = BenchmarkRequest((str(onnx_artifact.path),), named, baseline)
    (subject,) = made(request, tmp_path)
    assert measured_backends(request, subject) == measured
    assert subject.baseline == compared_with
    assert (subject.reference is exports.UNMEASURED) == (not {"pytorch", "inductor"} & {*measured})


def test_without_pytorch_the_first_backend_is_the_baseline(tmp_path: Path) -> None:
    (subject,) = made(BenchmarkRequest((str(foreign(tmp_path)),)), tmp_path)
    assert subject.baseline == Baseline("fake", None)
    with pytest.raises(UsageError, match="tensorflow"):
        BenchmarkRequest(baseline="tensorflow")


def test_files_of_one_network_are_one_subject(tmp_path: Path) -> None:
    """By their weights and inputs; the backends open each of them."""
    files = [
        artifact(tmp_path, name="small.fake", weights="a", precision="int8"),
        artifact(tmp_path, name="other.fake", weights="b"),
        artifact(tmp_path, name="net.fake", weights="a"),
        artifact(tmp_path, with_batch(SCRIPT, 3), name="fixed.fake", weights="a"),
    ]
    request = BenchmarkRequest(tuple(map(str, files)), backends=("fake",))
    both, other, fixed = made(request, tmp_path)
    assert [(subject.name, subject.own and subject.own.path.name) for subject in (both, other, fixed)] == [
        ("resnet20", "net.fake"),
        ("other.fake", "other.fake"),
        ("fixed.fake", "fixed.fake"),
    ]
    assert [(typed.precision, typed.file) for typed in both.typed] == [("int8", "small.fake"), ("fp32", "net.fake")]
    assert [typed.file for typed in other.typed] == [None]
    assert both.baseline == Baseline("fake", "fp32", "net.fake")
    assert [pair.typed.file for pair in subjects.pairs(both, request)] == ["small.fake", "net.fake"]
    (chosen,) = made(replace(request, subjects=(str(files[0]), str(files[2])), precisions=("int8",)), tmp_path)
    assert [(typed.precision, typed.file) for typed in chosen.typed] == [("int8", "small.fake")]


def test_a_variant_is_found_in_any_case_unless_it_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert subjects.variant_or_path("ResNet20") == "resnet20"
    (tmp_path / "ResNet20").touch()
    assert subjects.variant_or_path("ResNet20") == "ResNet20"
    assert subjects.variant_or_path("resnet21.onnx") == "resnet21.onnx"
    with refuses(UsageError, "variant-unknown", "resnet21"):
        subjects.variant_or_path("resnet21")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precisions": ("fp64",)}, "'fp64' .*fp32"),
        ({"calibration_images": 0, "precisions": ("int8",)}, "is 0, expected at least 1"),
    ],
)
def test_impossible_typings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BenchmarkRequest(**options)  # type: ignore[arg-type]


def test_a_calibration_goes_to_the_precision_that_takes_one() -> None:
    request = BenchmarkRequest(
        precisions=("fp16", "int8"), calibration="photos", calibration_images=8, target="tensorrt"
    )
    assert request.precision_spec("fp16").calibration is None
    precision_spec = request.precision_spec("int8")
    assert (precision_spec.calibration, precision_spec.calibration_images, precision_spec.target) == (
        "photos",
        8,
        "tensorrt",
    )


def precisions_of(found: tuple[PrecisionVariant, ...]) -> list[tuple[str | None, str]]:
    return [(typed.precision, typed.format) for typed in found]


def test_on_a_gpu_pytorch_has_programs_of_its_own(tmp_path: Path) -> None:
    """What is exported and paired; this needs no GPU."""
    path = onnx_file.export(ExportRequest(BASIC, f"{tmp_path}/small.onnx"), SILENT).path
    named = ("pytorch", "onnxruntime", "inductor")
    request = BenchmarkRequest((str(path),), named, precisions=("fp32", "tf32", "fp16"), device="cuda")
    (subject,) = made(request, tmp_path)
    assert precisions_of(subject.programs) == [("tf32", "pt2"), ("fp16", "pt2")]
    for typed in subject.programs:
        assert isinstance(typed.made, Artifact)
        assert typed.made.manifest is not None
        assert typed.made.manifest.parent == Artifact.read(path).manifest.sha256  # type: ignore[union-attr]
    assert [typed.made.path.name for typed in subject.programs if isinstance(typed.made, Artifact)] == [
        "small.tf32.pt2",
        "small.fp16.pt2",
    ]
    found = [(pair.backend.name, pair.typed.precision) for pair in subjects.pairs(subject, request)]
    assert found[:3] == [("pytorch", "fp32"), ("pytorch", "tf32"), ("pytorch", "fp16")]
    assert [precision for name, precision in found if name == "inductor"] == ["fp32", "tf32", "fp16"]
    assert [precision for name, precision in found if name == "onnxruntime"] == ["fp32", "tf32", "fp16"]
    on_cpu = replace(request, device="cpu")
    assert exports._program_precisions(on_cpu) == ()
    assert exports._program_precisions(replace(request, precisions=tuple(PRECISIONS))) == ("tf32", "fp16", "bf16")


def test_a_program_that_cannot_be_made_is_a_row_of_pytorchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = PRECISIONS["bf16"]
    monkeypatch.setitem(PRECISIONS, "bf16", replace(row, bounds=Bounds(error=1e-12, agreement=1.0, drop=0.0)))
    path = onnx_file.export(ExportRequest(BASIC, f"{tmp_path}/small.onnx"), SILENT).path
    request = BenchmarkRequest(subjects=(str(path),), precisions=("bf16",), backends=("pytorch",), device="cuda")
    (subject,) = made(request, tmp_path)
    (program,) = subject.programs
    assert isinstance(program.made, Refusal)
    assert (program.format, program.made.status) == ("pt2", "failed")
    found = [(pair.backend.name, pair.typed.precision) for pair in subjects.pairs(subject, request)]
    assert found == [("pytorch", "fp32"), ("pytorch", "bf16")]


def test_a_narrow_program_is_measured_beside_its_reference(tmp_path: Path) -> None:
    path = torch_program.export(ExportRequest(BASIC, f"{tmp_path}/small.pt2"), SILENT, PrecisionSpec("fp16")).path
    request = BenchmarkRequest(subjects=(str(path),), backends=("pytorch",))
    (subject,) = made(request, tmp_path)
    assert precisions_of(subject.typed) == [("fp16", "pt2")]
    assert subject.reference.precision == "fp32"
    assert isinstance(subject.reference.made, Artifact)
    assert subject.reference.made.path != path
    assert [(pair.backend.name, pair.typed.precision) for pair in subjects.pairs(subject, request)] == [
        ("pytorch", "fp32"),
        ("pytorch", "fp16"),
    ]


def test_a_float32_program_that_is_named_is_its_own_reference(pt2_artifact: Artifact, tmp_path: Path) -> None:
    request = BenchmarkRequest(subjects=(str(pt2_artifact.path),), backends=("pytorch",))
    (subject,) = made(request, tmp_path)
    assert [(pair.typed.precision, pair.opens) for pair in subjects.pairs(subject, request)] == [
        ("fp32", Artifact.read(pt2_artifact.path))
    ]
