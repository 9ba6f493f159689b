from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import run as runs
from benchmarks.request import Listener, Request
from benchmarks.results import Row
from runtimes.errors import ModelMismatchError, ResourceError, RexportError, UsageError
from tests.benchmarks.rows import EMPTY, SKIPPED
from tests.benchmarks.scripts import SCRIPT, artifact, foreign, with_batch

LISTENER = Listener(lambda *_: None, lambda _: None)
QUICK = Request(duration_s=0.02, threads=1, limit=20)


def rows_of(request: Request) -> list[Row]:
    return list(runs.run(request, LISTENER))


def test_an_artifact_gives_the_reference_and_a_row_for_each_batch(tmp_path: Path) -> None:
    rows = rows_of(replace(QUICK, subjects=(str(artifact(tmp_path)),), batches=(1, 4, 1)))
    assert [(row.runtime, row.batch, row.status) for row in rows] == [
        ("pytorch", 1, "skipped"),
        ("pytorch", 4, "skipped"),
        ("fake", 1, "ok"),
        ("fake", 4, "ok"),
    ]
    assert rows[0].reason is not None
    assert rows[0].reason.startswith("it has no PyTorch twin: only a file of format ")
    one, four = rows[2:]
    assert len({row.run for row in rows}) == 1
    assert (one.variant, one.weights, one.trained, one.precision) == ("resnet20", "bundled", True, "fp32")
    assert (one.arithmetic, one.provider, one.runtime_version, one.threads, one.data) == (
        "float32",
        "script",
        "1",
        1,
        "noise",
    )
    assert (one.images, four.images) == (20, None)  # answers are taken once for each runtime
    assert (one.top1, one.agreement, one.ratio) == (None, None, None)
    assert one.samples_s is not None
    assert one.p50_s is not None
    assert one.p50_interval_s is not None
    assert one.p50_interval_s[0] <= one.p50_s <= one.p50_interval_s[1]
    assert one.images_per_s == pytest.approx(len(one.samples_s) / sum(one.samples_s))
    assert (one.p99_s is None) == (len(one.samples_s) < 100)
    assert one.environment.usable_processors >= 1


def test_a_backend_that_dies_is_a_row_and_the_next_subject_is_still_measured(tmp_path: Path) -> None:
    dying = artifact(tmp_path, replace(SCRIPT, die_at=3), "dying.fake")
    wrong = artifact(tmp_path, replace(SCRIPT, scale=2.0), "wrong.fake")
    sound = artifact(tmp_path, SCRIPT, "sound.fake")
    rows = rows_of(replace(QUICK, subjects=(str(dying), str(wrong), str(sound)), runtimes=("fake",)))
    by_name = {row.artifact: row for row in rows if row.runtime == "fake"}
    assert [by_name[name].status for name in ("dying.fake", "wrong.fake", "sound.fake")] == ["error", "failed", "ok"]
    assert "SIGSEGV" in (by_name["dying.fake"].reason or "")
    assert by_name["wrong.fake"].p50_s is None
    assert by_name["wrong.fake"].samples_s is None
    assert runs.exit_code(rows, Request(runtimes=("fake",))) == 1


def test_a_hung_worker_is_a_row(tmp_path: Path) -> None:
    path = artifact(tmp_path, replace(SCRIPT, delays_s=(0.0, 0.0, 60.0)))
    rows = rows_of(replace(QUICK, subjects=(str(path),), silence_s=2.0))
    assert rows[-1].status == "error"
    assert "gave no sign of life for 2 s during step 'check'" in (rows[-1].reason or "")


def test_a_fixed_batch_is_the_default_and_another_is_refused_in_its_row(tmp_path: Path) -> None:
    path = artifact(tmp_path, with_batch(SCRIPT, 4))
    assert [row.batch for row in rows_of(replace(QUICK, subjects=(str(path),))) if row.status == "ok"] == [4]
    rows = rows_of(replace(QUICK, subjects=(str(path),), batches=(2,)))
    assert (rows[-1].status, rows[-1].batch) == ("error", 2)
    assert "fixed at 4, and 2 was asked for" in (rows[-1].reason or "")


def test_a_foreign_file_is_measured_without_answers(tmp_path: Path) -> None:
    row = rows_of(replace(QUICK, subjects=(str(foreign(tmp_path)),)))[-1]
    assert (row.status, row.weights, row.trained, row.images) == ("ok", None, None, None)
    assert len(row.sha256) == 64
    assert row.note == "no test vectors: the outputs were only checked to be finite"


def test_a_device_that_a_backend_has_not_is_a_row_with_its_reason(tmp_path: Path) -> None:
    request = replace(QUICK, subjects=(str(artifact(tmp_path)),), device="cuda", cuda_graphs=False)
    rows = rows_of(replace(request, runtimes=("fake",)))
    assert (rows[-1].status, rows[-1].reason) == ("skipped", "it runs on cpu, and cuda was asked for")
    assert rows[-1].cuda_graphs is False
    assert runs.exit_code(rows, Request()) == 5
    assert [row.runtime for row in rows_of(request)] == ["pytorch"]  # unless it is named


def test_closing_the_generator_ends_the_run(tmp_path: Path) -> None:
    path = artifact(tmp_path)
    with contextlib.closing(runs.run(replace(QUICK, subjects=(str(path),)), LISTENER)) as rows:
        assert next(rows).runtime == "pytorch"


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"runtimes": ("tensorflow",)}, UsageError, "no runtime 'tensorflow' .*one of .*fake"),
        ({"runtimes": ("onnxruntime",)}, UsageError, "net.fake: runtime onnxruntime does not open fake files"),
        ({"subjects": ("resnet21",)}, UsageError, "no variant 'resnet21'"),
        ({"subjects": ("no/such/resnet20.onnx",)}, ResourceError, "cannot read: No such file"),
        ({"weights": "bundled"}, UsageError, "--weights is for variants"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(
    tmp_path: Path, change: dict[str, tuple[str, ...]], kind: type[RexportError], message: str
) -> None:
    request = replace(QUICK, subjects=(str(artifact(tmp_path)),))
    told: list[str] = []
    with pytest.raises(kind, match=message):
        list(runs.run(replace(request, **change), Listener(lambda name, _: told.append(name), told.append)))  # type: ignore[arg-type]
    assert told == []


def test_images_for_a_file_that_does_not_say_how_they_are_prepared_are_refused(tmp_path: Path) -> None:
    request = replace(QUICK, subjects=(str(foreign(tmp_path)),), data="fashion-mnist")
    with pytest.raises(ModelMismatchError, match=r"nothing says how images .*leave --data out"):
        rows_of(request)


def class_folders(root: Path, classes: int) -> Path:
    """Two images of 8x8 a class, in folders; the first image of class 3 is broken."""
    image = pytest.importorskip("PIL.Image", reason="images on the disk need Pillow")
    for number in range(classes):
        (root / f"class{number}").mkdir(parents=True)
        for name in ("a.png", "b.png"):
            image.new("RGB", (8, 8), (250, 250, 250) if name == "a.png" else (0, 0, 0)).save(
                root / f"class{number}" / name
            )
    (root / "class3" / "a.png").write_bytes(b"no image")
    return root


def test_a_broken_image_is_named_and_does_not_shift_the_others(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "photos", 10)
    rows = rows_of(replace(QUICK, subjects=(str(artifact(tmp_path)),), data=str(data), limit=None))
    row = rows[-1]
    assert (row.status, row.images, row.unreadable) == ("ok", 19, 1)
    assert "1 images could not be read: " in (row.note or "")
    assert "class3/a.png" in (row.note or "")
    # The scripted network calls a bright image 9 and a dark one 0: right for one image of class 9 and one of class 0.
    assert row.top1 == 2 / 19
    assert runs.exit_code(rows, Request()) == 1


def test_data_of_other_classes_are_refused_and_the_file_is_named(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "photos", 4)
    with pytest.raises(ModelMismatchError, match=r"net\.fake: data of 4 classes for a network of 10 classes"):
        rows_of(replace(QUICK, subjects=(str(artifact(tmp_path)),), data=str(data)))


@pytest.mark.slow
def test_a_variant_is_exported_and_compared_with_pytorch() -> None:
    for library in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    notices: list[str] = []
    request = replace(QUICK, subjects=("resnet20",), runtimes=("onnxruntime",), limit=16)
    reference, other = list(runs.run(request, Listener(lambda *_: None, notices.append)))
    assert [(row.runtime, row.status) for row in (reference, other)] == [("pytorch", "ok"), ("onnxruntime", "ok")]
    assert (reference.ratio, reference.agreement) == (1.0, 1.0)
    assert other.ratio is not None
    assert other.ratio_interval is not None
    assert other.ratio_interval[0] <= other.ratio <= other.ratio_interval[1]
    assert (other.agreement, other.images, other.data, other.top1) == (1.0, 16, "noise", None)
    assert (other.weights, other.trained) == ("random", False)
    assert any("untrained" in notice for notice in notices)


@pytest.mark.parametrize(
    ("rows", "runtimes", "precisions", "code"),
    [
        ([EMPTY], (), (), 0),
        ([EMPTY, SKIPPED], (), (), 0),
        ([EMPTY, SKIPPED], ("openvino",), (), 5),
        ([SKIPPED], (), (), 5),
        ([], (), (), 5),
        ([EMPTY, replace(EMPTY, status="failed")], (), (), 1),
        ([EMPTY, SKIPPED, replace(EMPTY, status="error")], ("openvino",), (), 1),
        ([replace(EMPTY, unreadable=1)], (), (), 1),
        ([replace(EMPTY, unreadable=0)], (), (), 0),
        ([EMPTY, replace(EMPTY, status="skipped", precision="bf16")], ("onnxruntime",), ("fp32",), 0),
        ([EMPTY, replace(EMPTY, status="skipped", precision="bf16")], (), ("fp32", "bf16"), 5),
        ([replace(SKIPPED, precision="bf16"), replace(EMPTY, precision="bf16")], (), ("bf16",), 0),
        ([replace(EMPTY, precision="int8"), replace(EMPTY, precision="bf16")], (), ("int8", "bf16"), 0),
    ],
)
def test_exit_codes(rows: list[Row], runtimes: tuple[str, ...], precisions: tuple[str, ...], code: int) -> None:
    assert runs.exit_code(rows, Request(runtimes=runtimes, precisions=precisions)) == code
