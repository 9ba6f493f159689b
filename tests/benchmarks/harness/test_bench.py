from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.analysis import figures as rows
from benchmarks.harness import bench as runs
from benchmarks.harness import scheduler
from benchmarks.harness.bench import Bench
from benchmarks.harness.scheduler import Progress
from benchmarks.records.load import LoadResult
from benchmarks.records.request import BenchmarkRequest, RunListener
from benchmarks.records.result import Row
from benchmarks.records.subject import Configuration, Pair, PrecisionVariant, Refusal, Subject
from benchmarks.roofline import ceilings
from benchmarks.roofline.ceilings import Ceilings
from benchmarks.stats import comparison as statistics
from benchmarks.stats import intervals
from runtimes.backends import fake
from runtimes.backends.fake import Script
from runtimes.errors import ModelMismatchError, ResourceError, RexportError, UsageError
from tests.benchmarks.rows import EMPTY, SKIPPED
from tests.benchmarks.scripts import SCRIPT, artifact, foreign, read, with_batch

LISTENER = RunListener(lambda *_: None, lambda _: None)
QUICK = BenchmarkRequest(duration_s=0.02, processes=1, rounds=2, threads=1, limit=20, roofline=False)
TWICE = replace(QUICK, processes=2)
TIMED = replace(SCRIPT, delays_s=(0.001,))
"""So long that a busy machine cannot make it look undone."""


def rows_of(request: BenchmarkRequest) -> list[Row]:
    return list(runs.run(request, LISTENER))


def test_an_artifact_gives_the_reference_and_a_row_for_each_batch(tmp_path: Path) -> None:
    request = replace(QUICK, subjects=(str(artifact(tmp_path, TIMED)),), batches=(1, 4, 1), command=("rbench", "run"))
    found = rows_of(request)
    assert [(row.runtime, row.batch, row.status, row.field) for row in found] == [
        ("pytorch", 1, "skipped", 1),
        ("fake", 1, "ok", 1),
        ("pytorch", 4, "skipped", 2),
        ("fake", 4, "ok", 2),
    ]
    assert found[0].reason is not None
    assert found[0].reason.startswith("it has no PyTorch twin: only a file of format ")
    _, one, _, four = found
    assert len({row.run for row in found}) == 1
    assert {(row.processes, row.rounds, row.duration_s, row.command) for row in found} == {
        (1, 2, 0.02, ("rbench", "run"))
    }
    assert (one.requested_threads, one.requested_device) == (1, "cpu")
    assert (one.variant, one.weights, one.trained, one.precision) == ("resnet20", "bundled", True, "fp32")
    assert (one.arithmetic, one.provider, one.runtime_version, one.threads, one.data) == (
        "float32",
        "script",
        "1",
        1,
        "noise",
    )
    assert (one.images, four.images) == (20, None)  # answers are taken once for each runtime
    assert (one.answers is None, four.answers is None) == (False, True)
    assert (one.top1, one.agreement, one.ratio, one.verdict, one.flips) == (None,) * 5
    assert one.evaluated_per_s is not None
    (sitting,) = one.sittings
    assert len(sitting.latency.rounds_s) == len(sitting.compute.rounds_s) == len(sitting.starts_s) == 2
    samples = sitting.latency.samples_s
    assert one.p50_s == intervals.quantile(samples, 0.5) >= 0.001
    assert one.p50_interval_s is not None
    assert one.p50_interval_s[0] <= one.p50_s <= one.p50_interval_s[1]
    assert one.images_per_s == pytest.approx(len(samples) / sum(samples))
    assert (one.p99_s, one.p999_s, one.roof) == (None, None, None)
    assert one.disturbances is not None
    assert one.environment.usable_processors >= 1


def test_a_backend_that_dies_is_a_row_and_the_next_subject_is_still_measured(tmp_path: Path) -> None:
    dying = artifact(tmp_path, replace(SCRIPT, die_at=3), "dying.fake")
    wrong = artifact(tmp_path, replace(SCRIPT, scale=2.0), "wrong.fake")
    sound = artifact(tmp_path, TIMED, "sound.fake")
    found = rows_of(replace(QUICK, subjects=(str(dying), str(wrong), str(sound)), backends=("fake",)))
    by_name = {row.artifact: row for row in found if row.runtime == "fake"}
    assert [by_name[name].status for name in ("dying.fake", "wrong.fake", "sound.fake")] == ["error", "failed", "ok"]
    assert "SIGSEGV" in (by_name["dying.fake"].reason or "")
    assert by_name["wrong.fake"].p50_s is None
    assert by_name["wrong.fake"].sittings == ()
    assert runs.exit_code(found, BenchmarkRequest(backends=("fake",))) == 1


def test_a_hung_worker_is_a_row(tmp_path: Path) -> None:
    path = artifact(tmp_path, replace(SCRIPT, delays_s=(0.0, 0.0, 60.0)))
    found = rows_of(replace(TWICE, subjects=(str(path),), silence_s=2.0))
    assert found[-1].status == "error"
    assert "gave no sign of life for 2 s during step 'check'" in (found[-1].reason or "")


def test_a_fixed_batch_is_the_default_and_another_is_refused_in_its_row(tmp_path: Path) -> None:
    path = artifact(tmp_path, with_batch(TIMED, 4))
    assert [row.batch for row in rows_of(replace(QUICK, subjects=(str(path),))) if row.status == "ok"] == [4]
    found = rows_of(replace(QUICK, subjects=(str(path),), batches=(2,)))
    assert (found[-1].status, found[-1].batch) == ("error", 2)
    assert "fixed at 4, and 2 was asked for" in (found[-1].reason or "")


def test_a_foreign_file_is_measured_without_answers(tmp_path: Path) -> None:
    row = rows_of(replace(QUICK, subjects=(str(foreign(tmp_path, TIMED)),)))[-1]
    assert (row.status, row.weights, row.trained, row.images) == ("ok", None, None, None)
    assert len(row.sha256) == 64
    assert row.note == "no test vectors: the outputs were only checked to be finite"


def test_a_device_that_a_backend_has_not_is_a_row_with_its_reason(tmp_path: Path) -> None:
    request = replace(QUICK, subjects=(str(artifact(tmp_path)),), device="cuda", cuda_graphs=False)
    found = rows_of(replace(request, backends=("fake",)))
    assert (found[-1].status, found[-1].reason) == ("skipped", "it runs on cpu, and cuda was asked for")
    assert (found[-1].cuda_graphs, found[-1].requested_device) == (False, "cuda")
    assert runs.exit_code(found, BenchmarkRequest()) == 5
    assert [row.runtime for row in rows_of(request)] == ["pytorch"]  # unless it is named


def test_closing_the_generator_ends_the_run(tmp_path: Path) -> None:
    path = artifact(tmp_path, TIMED)
    with contextlib.closing(runs.run(replace(QUICK, subjects=(str(path),)), LISTENER)) as found:
        assert next(found).runtime == "pytorch"


# A field: configurations side by side. The fake backend in fp32 stands in for the reference.

Subjected = Callable[..., tuple[Subject, list[Configuration]]]


@pytest.fixture
def together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subjected:
    """Makes a subject, and a configuration of each script: the first is in fp32, and the reference."""
    monkeypatch.setattr(rows, "REFERENCE", "fake")

    def made(*scripts: Script | Refusal) -> tuple[Subject, list[Configuration]]:
        typed = [
            PrecisionVariant(name, one if isinstance(one, Refusal) else read(artifact(tmp_path, one, f"{name}.fake")))
            for name, one in zip(("fp32", "fp16", "bf16"), scripts, strict=False)
        ]
        own = read(artifact(tmp_path, TIMED))
        assert own.manifest is not None
        subject = Subject("net", None, "resnet20", own.manifest.weights, tuple(typed), typed[0], None, None)
        return subject, [Configuration(Pair(fake.BACKEND, one, one.made), 1, 1) for one in typed]

    return made


@contextlib.contextmanager
def bench(subject: Subject, request: BenchmarkRequest, listener: RunListener = LISTENER) -> Iterator[Bench]:
    with runs.session(request, listener) as shared:
        yield Bench(shared, subject)


def taken(row: Row) -> list[Sequence[Sequence[float]]]:
    """The latencies by process and round."""
    return [sitting.latency.rounds_s for sitting in row.sittings]


def delayed(delay_s: float) -> Script:
    return replace(SCRIPT, delays_s=(delay_s,))


def test_rows_of_one_field_took_turns_and_are_paired_and_others_are_not(together: Subjected) -> None:
    subject, configurations = together(delayed(0.001), delayed(0.003), Refusal("failed", "its gate"))
    with bench(subject, TWICE) as measuring:
        found = list(measuring.rows(configurations))
        again = measuring.row(configurations[1])
    reference, slow, refused = found
    assert [row.status for row in found] == ["ok", "ok", "failed"]
    assert {row.field for row in found} == {1}
    assert again.field == 2
    assert (refused.reason, refused.sittings, refused.processes) == ("its gate", (), 2)
    for mine, its in zip(slow.sittings, reference.sittings, strict=True):
        assert len(mine.starts_s) == len(its.starts_s) == 2
        rounds = list(zip(mine.starts_s, its.starts_s, strict=True))
        assert max(rounds[0]) < min(rounds[1])
    assert max(reference.sittings[0].starts_s) < min(slow.sittings[1].starts_s)
    assert (reference.ratio, reference.verdict) == (1.0, None)
    expected = statistics.compare_paired(taken(reference), taken(slow), seed=0)
    assert (slow.ratio, slow.ratio_interval) == (expected.ratio, expected.interval)
    apart = statistics.compare_unpaired(taken(reference), taken(again), seed=0)
    assert (again.ratio, again.ratio_interval) == (apart.ratio, apart.interval)
    assert slow.ratio is not None
    assert 0.2 < slow.ratio < 0.7
    assert (slow.agreement, slow.images) == (1.0, 20)
    assert slow.flips is not None
    assert (again.agreement, again.answers) == (None, None)  # its answers were taken already


def test_what_found_no_room_is_measured_alone_and_said_so(together: Subjected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "HELD", 1)
    subject, configurations = together(TIMED, delayed(0.002))
    with bench(subject, QUICK) as measuring:
        reference, alone = measuring.rows(configurations)
    assert (reference.field, alone.field) == (1, None)
    assert "it was measured by itself, as there was no room beside the others" in alone.warnings
    expected = statistics.compare_unpaired(taken(reference), taken(alone), seed=0)
    assert (alone.ratio, alone.ratio_interval) == (expected.ratio, expected.interval)


def listening(at: str, act: Callable[[], None]) -> RunListener:
    """Acts once, at the first step that begins so."""
    done: list[str] = []

    def step(_: str, words: str) -> None:
        if words.startswith(at) and not done:
            done.append(words)
            act()

    return RunListener(step, lambda _: None)


def test_a_configuration_that_fails_in_its_second_process_is_an_error_that_says_so(together: Subjected) -> None:
    subject, configurations = together(TIMED, delayed(0.002))
    broken = configurations[1].pair.opens
    assert not isinstance(broken, Refusal)

    def breaking() -> None:
        broken.path.write_text("not a script any more")

    listener = listening("process 2 of 2 · ", breaking)
    with bench(subject, TWICE, listener) as measuring:
        reference, failed = measuring.rows(configurations)
    assert (reference.status, len(reference.sittings)) == ("ok", 2)
    assert (failed.status, failed.p50_s, failed.sittings, failed.answers) == ("error", None, (), None)
    assert (failed.reason or "").startswith("in process 2: ")


def test_without_the_reference_there_are_no_ratios(together: Subjected) -> None:
    subject, configurations = together(replace(SCRIPT, die_at=3), TIMED)
    with bench(subject, QUICK) as measuring:
        reference, other = measuring.rows(configurations)
    assert (reference.status, other.status) == ("error", "ok")
    assert (other.ratio, other.ratio_interval, other.verdict, other.agreement, other.flips) == (None,) * 5
    assert other.answers is not None


def interrupted() -> None:
    raise KeyboardInterrupt


def terminated() -> None:
    raise SystemExit(143)


@pytest.mark.parametrize(("act", "kind"), [(interrupted, KeyboardInterrupt), (terminated, SystemExit)])
def test_an_early_end_gives_what_the_processes_that_were_through_gave(
    together: Subjected, act: Callable[[], None], kind: type[BaseException]
) -> None:
    subject, configurations = together(TIMED, delayed(0.002), Refusal("failed", "its gate"))
    found: list[Row] = []
    with (
        bench(subject, TWICE, listening("process 2 of 2 · round 1", act)) as measuring,
        pytest.raises(kind),
    ):
        found.extend(measuring.rows(configurations))  # a list keeps what came before
    assert [(row.status, row.precision, len(row.sittings)) for row in found] == [("ok", "fp32", 1), ("ok", "fp16", 1)]
    for row in found:
        assert "it was measured in 1 of 2 processes: the run ended early" in row.warnings
    assert found[1].ratio is not None
    assert found[1].images == 20


def test_an_early_end_before_the_first_process_is_through_gives_nothing(together: Subjected) -> None:
    subject, configurations = together(TIMED)
    found: list[Row] = []
    with bench(subject, QUICK, listening("round 1", interrupted)) as measuring, pytest.raises(KeyboardInterrupt):
        found.extend(measuring.rows(configurations))
    assert found == []


@pytest.mark.parametrize(
    ("told", "later", "subject", "left_s"),
    [
        (Progress("fake", "open"), 2, "net · fake", (None,)),
        (Progress("", "round 1", 3.0, 10.0), 0, "net", (3.0,)),
        (Progress("", "round 1", 3.0, 10.0), 2, "net", (23.0,)),
        (Progress("", "round 1", 3.0, 10.0), None, "net", ()),  # of how many nobody knows
    ],
)
def test_the_time_that_is_left_is_of_what_is_still_to_come_too(
    told: Progress, later: int | None, subject: str, left_s: tuple[float | None, ...], together: Subjected
) -> None:
    heard: list[object] = []
    listener = RunListener(lambda name, step: heard.append((name, step)), heard.append, heard.append)
    with bench(together(TIMED)[0], QUICK, listener) as measuring:
        measuring._pass_progress_on(later)(told)
    assert heard == [*left_s, (subject, told.step)]


def test_a_session_measures_the_ceilings_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str]] = []

    def measured(threads: int, device: str) -> Ceilings:
        asked.append((threads, device))
        return Ceilings(device, threads, missing="not measured: no library")

    monkeypatch.setattr(ceilings, "measure_ceilings", measured)
    notices: list[str] = []
    listener = RunListener(lambda *_: None, notices.append)
    with runs.session(replace(QUICK, threads=3), listener) as shared:
        assert runs.with_ceilings(shared) is shared
    assert (asked, notices) == ([], [])
    with runs.session(replace(QUICK, threads=3, roofline=True), listener) as shared:
        assert runs.with_ceilings(shared).ceilings == measured(3, "cpu")
        asked.pop()
    assert (asked, notices) == ([(3, "cpu")], ["no roofline: not measured: no library"])


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
    request = replace(QUICK, subjects=(str(artifact(tmp_path)),), roofline=True)
    told: list[str] = []
    with pytest.raises(kind, match=message):
        list(runs.run(replace(request, **change), RunListener(lambda name, _: told.append(name), told.append)))  # type: ignore[arg-type]
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
    found = rows_of(replace(QUICK, subjects=(str(artifact(tmp_path, TIMED)),), data=str(data), limit=None))
    row = found[-1]
    assert (row.status, row.images, row.unreadable) == ("ok", 19, 1)
    assert "1 image could not be read: " in (row.note or "")
    assert "class3/a.png" in (row.note or "")
    # The scripted network calls a bright image 9 and a dark one 0: right for one image of class 9 and one of class 0.
    assert row.top1 == 2 / 19
    assert row.image_p50_s is not None
    assert any("are one value throughout" in line for line in row.warnings)
    assert runs.exit_code(found, BenchmarkRequest()) == 1


def test_data_of_other_classes_are_refused_and_the_file_is_named(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "photos", 4)
    with pytest.raises(ModelMismatchError, match=r"net\.fake: data of 4 classes for a network of 10 classes"):
        rows_of(replace(QUICK, subjects=(str(artifact(tmp_path)),), data=str(data)))


@pytest.mark.slow
def test_a_variant_is_exported_and_compared_with_pytorch() -> None:
    for library in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    notices: list[str] = []
    request = replace(TWICE, subjects=("resnet20",), backends=("onnxruntime",), limit=16, roofline=True)
    reference, other = list(runs.run(request, RunListener(lambda *_: None, notices.append)))
    assert [(row.runtime, row.status) for row in (reference, other)] == [("pytorch", "ok"), ("onnxruntime", "ok")]
    assert (reference.ratio, reference.agreement) == (1.0, 1.0)
    assert other.ratio is not None
    assert other.ratio_interval is not None
    assert other.ratio_interval[0] <= other.ratio <= other.ratio_interval[1]
    assert other.verdict in ("faster", "slower", "tie")
    assert (other.agreement, other.images, other.data, other.top1) == (1.0, 16, "noise", None)
    assert (other.weights, other.trained) == ("random", False)
    assert any("untrained" in notice for notice in notices)
    for row in (reference, other):
        assert row.roof is not None
        assert row.roof.share > 0
        assert len(row.sittings) == 2
    assert reference.roof is not None
    assert other.roof is not None
    assert other.roof.multiply_adds == reference.roof.multiply_adds


QUIET = replace(EMPTY, disturbances=())
DISTURBED = replace(EMPTY, disturbances=("others used 0.93 of 2 processors",))


@pytest.mark.parametrize(
    ("found", "strict", "code"),
    [
        ([QUIET, SKIPPED], True, 0),
        ([QUIET, EMPTY], True, 1),  # nobody looked
        ([QUIET, EMPTY], False, 0),
        ([QUIET, replace(EMPTY, load=LoadResult("cold", (0.1,), (0.3,), 3.0))], True, 0),
        ([QUIET, replace(EMPTY, load=LoadResult("closed", (0.1,), (0.1,), 3.0))], True, 1),
        ([QUIET, DISTURBED], True, 1),
        ([EMPTY, DISTURBED], False, 0),
        ([QUIET, replace(DISTURBED, status="skipped")], True, 0),  # there is no number that was disturbed
    ],
)
def test_a_disturbed_machine_is_a_failure_where_that_is_asked_for(found: list[Row], strict: bool, code: int) -> None:
    assert runs.exit_code(found, BenchmarkRequest(strict=strict)) == code


@pytest.mark.parametrize(
    ("found", "runtimes", "precisions", "code"),
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
def test_exit_codes(found: list[Row], runtimes: tuple[str, ...], precisions: tuple[str, ...], code: int) -> None:
    assert runs.exit_code(found, BenchmarkRequest(backends=runtimes, precisions=precisions)) == code
