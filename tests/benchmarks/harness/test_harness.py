from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.analysis.figures import Figures
from benchmarks.harness import run as runs
from benchmarks.harness import scheduler
from benchmarks.harness.eta import USUAL, RunPlan, Workload
from benchmarks.harness.harness import Harness, Trial
from benchmarks.records import request as records_request
from benchmarks.records.plan import ArrivalPlan
from benchmarks.records.request import (
    BenchmarkRequest,
    Configuration,
    Pair,
    PrecisionVariant,
    Refusal,
    RunListener,
    Subject,
)
from benchmarks.records.result import Baseline, Estimate, Evaluation, Result
from benchmarks.records.samples import LoadResult
from benchmarks.roofline import ceilings
from benchmarks.roofline.ceilings import Ceilings
from benchmarks.stats import comparison as statistics
from benchmarks.stats import intervals
from runtimes.backends import fake
from runtimes.backends.fake import Script
from runtimes.errors import ModelMismatchError, Reason, ResourceError, RexportError, UsageError
from tests.benchmarks.results import EMPTY, SKIPPED, change, change_facts
from tests.benchmarks.scripts import SCRIPT, artifact, foreign, read, with_batch
from tests.refusals import refuses

LISTENER = RunListener(lambda *_: None, lambda _: None)
QUICK = BenchmarkRequest(duration_s=0.02, processes=1, rounds=2, threads=1, limit=20, roofline=False)
TWICE = replace(QUICK, processes=2)
TIMED = replace(SCRIPT, delays_s=(0.001,))
"""So long that a busy machine cannot make it look undone."""


def measured(request: BenchmarkRequest, listener: RunListener = LISTENER) -> tuple[Figures, ...]:
    return Figures.of_all(list(runs.run(request, listener)))


def value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def reason_of(figures: Figures) -> str:
    return str(figures.result.reason)


def test_an_artifact_gives_its_reference_and_a_row_for_each_(tmp_path: Path) -> None:
    request = replace(QUICK, subjects=(str(artifact(tmp_path, TIMED)),), batches=(1, 4, 1), command=("rbench", "run"))
    found = measured(request)
    results = [figures.result for figures in found]
    assert [(each.identity.backend, each.identity.batch, each.status, each.asked.group) for each in results] == [
        ("pytorch", 1, "skipped", 1),
        ("fake", 1, "ok", 1),
        ("pytorch", 4, "skipped", 2),
        ("fake", 4, "ok", 2),
    ]
    assert "PyTorch" in reason_of(found[0])
    _, one, _, four = found
    result, of, ran = one.result, one.result.identity, one.result.ran
    assert len({each.run for each in results}) == 1
    asked = {(each.asked.processes, each.asked.rounds, each.asked.duration_s, each.asked.command) for each in results}
    assert asked == {(1, 2, 0.02, ("rbench", "run"))}
    assert (result.asked.threads, result.asked.device) == (1, "cpu")
    assert (of.variant, of.weights, of.trained, of.precision, of.data) == ("resnet20", "bundled", True, "fp32", "noise")
    assert (ran.arithmetic, ran.provider, ran.backend_version, ran.threads) == ("float32", "script", "1", 1)
    assert (one.images, four.images) == (20, None)  # predictions are taken once for each backend
    assert (result.predictions is None, four.result.predictions is None) == (False, True)
    assert (one.top1, one.verdict, one.changed_predictions) == (None,) * 3
    assert (value(one.agreement), value(one.ratio)) == (1.0, 1.0)  # where PyTorch cannot run it is the baseline
    assert {each.asked.baseline for each in results} == {Baseline("fake", "fp32")}
    assert (of.file, of.size_bytes) == (None, (tmp_path / "net.fake").stat().st_size)
    assert results[0].identity.size_bytes is None
    assert result.evaluation is not None
    assert result.evaluation.images_per_s is not None
    (process,) = result.samples
    assert len(process.latency.rounds_s) == len(process.compute.rounds_s) == len(process.starts_s) == 2
    samples = process.latency.samples_s
    assert one.p50 is not None
    assert one.p50.value == intervals.quantile(samples, 0.5) >= 0.001
    assert (one.p50.interval, one.validity) in ((None, "PRELIMINARY"), (None, "INVALID"))
    assert one.images_per_s == pytest.approx(len(samples) / sum(samples))
    assert (one.p99, one.p999, result.roof) == (None, None, None)
    assert one.disturbances is not None
    assert result.environment.usable_processors >= 1


def test_a_backend_that_dies_is_a_row_and_the_rest_is_measured(tmp_path: Path) -> None:
    dying = artifact(tmp_path, replace(SCRIPT, die_at=3), "dying.fake")
    wrong = artifact(tmp_path, replace(SCRIPT, scale=2.0), "wrong.fake")
    sound = artifact(tmp_path, TIMED, "sound.fake")
    found = measured(replace(QUICK, subjects=(str(dying), str(wrong), str(sound)), backends=("fake",)))
    by_name = {row.result.identity.artifact: row for row in found if row.result.identity.backend == "fake"}
    statuses = [by_name[name].result.status for name in ("dying.fake", "wrong.fake", "sound.fake")]
    assert statuses == ["error", "failed", "ok"]
    assert len({row.result.asked.group for row in found}) == 3  # those of two networks did not take turns
    assert "SIGSEGV" in reason_of(by_name["dying.fake"])
    assert by_name["wrong.fake"].p50 is None
    assert by_name["wrong.fake"].result.samples == ()
    assert runs.exit_code(found, BenchmarkRequest(backends=("fake",))) == 1


def test_a_hung_worker_is_a_row(tmp_path: Path) -> None:
    path = artifact(tmp_path, replace(SCRIPT, delays_s=(0.0, 0.0, 60.0)))
    found = measured(replace(TWICE, subjects=(str(path),), silence_s=2.0))
    assert found[-1].result.status == "error"
    for value in ("2 s", "'check'"):
        assert value in reason_of(found[-1])


def test_a_fixed_batch_is_the_default_and_another_is_an_error(tmp_path: Path) -> None:
    path = artifact(tmp_path, with_batch(TIMED, 4))
    found = measured(replace(QUICK, subjects=(str(path),)))
    assert [each.result.identity.batch for each in found if each.result.status == "ok"] == [4]
    found = measured(replace(QUICK, subjects=(str(path),), batches=(2,)))
    assert (found[-1].result.status, found[-1].result.identity.batch) == ("error", 2)
    for value in ("4", "2"):
        assert value in reason_of(found[-1])


def test_a_foreign_file_is_measured_without_answers(tmp_path: Path) -> None:
    row = measured(replace(QUICK, subjects=(str(foreign(tmp_path, TIMED)),)))[-1]
    of = row.result.identity
    assert (row.result.status, of.weights, of.trained, row.images) == ("ok", None, None, None)
    assert len(row.result.identity.sha256) == 64
    assert [note.code for note in row.result.notes] == ["outputs-not-compared"]


def test_a_device_that_a_backend_has_not_is_a_skipped_row(tmp_path: Path) -> None:
    request = replace(QUICK, subjects=(str(artifact(tmp_path)),), device="cuda", cuda_graphs=False)
    found = measured(replace(request, backends=("fake",)))
    assert found[-1].result.status == "skipped"
    for value in ("cpu", "cuda"):
        assert value in reason_of(found[-1])
    assert (found[-1].result.asked.cuda_graphs, found[-1].result.asked.device) == (False, "cuda")
    assert runs.exit_code(found, BenchmarkRequest()) == 5
    assert [row.result.identity.backend for row in measured(request)] == ["pytorch"]  # unless it is named


def test_closing_the_generator_ends_the_run(tmp_path: Path) -> None:
    path = artifact(tmp_path, TIMED)
    with contextlib.closing(runs.run(replace(QUICK, subjects=(str(path),)), LISTENER)) as found:
        assert next(found).identity.backend == "pytorch"


# Configurations side by side. The fake backend in fp32 stands in for the reference.

Subjected = Callable[..., list[Configuration]]


@pytest.fixture
def together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subjected:
    """Makes a configuration of each script: the first is in fp32, and the reference."""
    monkeypatch.setattr(records_request, "REFERENCE", "fake")

    def made(*scripts: Script | Refusal) -> list[Configuration]:
        typed = [
            PrecisionVariant(name, one if isinstance(one, Refusal) else read(artifact(tmp_path, one, f"{name}.fake")))
            for name, one in zip(("fp32", "fp16", "bf16"), scripts, strict=False)
        ]
        own = read(artifact(tmp_path, TIMED))
        assert own.manifest is not None
        subject = Subject("net", None, "resnet20", own.manifest.weights, tuple(typed), typed[0], None, None)
        return [Configuration(Pair(subject, fake.BACKEND, one, one.made), 1, 1) for one in typed]

    return made


def race(harness: Harness, configurations: Sequence[Configuration]) -> Iterator[Result]:
    """The results of configurations that are measured side by side."""
    return harness.measure([Trial(tuple(configurations))])


def finished(harness: Harness, configurations: Sequence[Configuration]) -> tuple[Figures, ...]:
    """The same with their figures."""
    return Figures.of_all(list(race(harness, configurations)))


def taken(figures: Figures) -> list[Sequence[Sequence[float]]]:
    """The latencies by process and round."""
    return [process.latency.rounds_s for process in figures.result.samples]


def delayed(delay_s: float) -> Script:
    return replace(SCRIPT, delays_s=(delay_s,))


def test_rows_of_one_trial_are_paired_and_others_are_not(together: Subjected) -> None:
    configurations = together(delayed(0.001), delayed(0.003), Refusal("failed", Reason("gate", "its gate")))
    with Harness(TWICE, LISTENER) as harness:
        results = list(race(harness, configurations))
        (result,) = race(harness, configurations[1:2])
    found, again = Figures.of_all(results), Figures.of(result, results)
    reference, slow, refused = found
    assert [each.status for each in results] == ["ok", "ok", "failed"]
    assert {each.asked.group for each in results} == {1}
    assert result.asked.group == 2
    assert (reason_of(refused), refused.result.samples, refused.result.asked.processes) == ("its gate", (), 2)
    for mine, its in zip(slow.result.samples, reference.result.samples, strict=True):
        assert len(mine.starts_s) == len(its.starts_s) == 2
        rounds = list(zip(mine.starts_s, its.starts_s, strict=True))
        assert max(rounds[0]) < min(rounds[1])
    assert max(reference.result.samples[0].starts_s) < min(slow.result.samples[1].starts_s)
    assert (value(reference.ratio), reference.verdict) == (1.0, None)
    assert value(slow.ratio) == statistics.compare_paired(taken(reference), taken(slow), seed=0).ratio
    assert value(again.ratio) == statistics.compare_unpaired(taken(reference), taken(again), seed=0).ratio
    assert slow.ratio is not None
    assert 0.2 < slow.ratio.value < 0.7
    assert (value(slow.agreement), slow.images) == (1.0, 20)
    assert slow.changed_predictions is not None
    assert (again.agreement, result.predictions) == (None, None)  # its predictions were taken already


def test_what_found_no_room_is_measured_alone_and_said_so(together: Subjected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "HELD", 1)
    configurations = together(TIMED, delayed(0.002))
    with Harness(QUICK, LISTENER) as harness:
        reference, alone = finished(harness, configurations)
    assert (reference.result.asked.group, alone.result.asked.group) == (1, None)
    assert "measured-alone" in [warning.code for warning in alone.warnings]
    assert "processes-held" in [note.code for note in alone.result.notes]
    assert value(alone.ratio) == statistics.compare_unpaired(taken(reference), taken(alone), seed=0).ratio


def listening(at: str, act: Callable[[], None]) -> RunListener:
    """Acts once, at the first step that begins so."""
    done: list[str] = []

    def step(_: str, words: str) -> None:
        if words.startswith(at) and not done:
            done.append(words)
            act()

    return RunListener(step, lambda _: None)


def test_a_failure_in_the_second_process_says_which_it_was(together: Subjected) -> None:
    configurations = together(TIMED, delayed(0.002))
    broken = configurations[1].pair.opens
    assert not isinstance(broken, Refusal)

    def breaking() -> None:
        broken.path.write_text("not a script any more")

    listener = listening("process 2 of 2 · ", breaking)
    with Harness(TWICE, listener) as harness:
        reference, failed = finished(harness, configurations)
    assert (reference.result.status, len(reference.result.samples)) == ("ok", 2)
    assert (failed.result.status, failed.result.samples, failed.result.predictions) == ("error", (), None)
    assert reason_of(failed).startswith("in process 2: ")


def test_without_the_reference_there_are_no_ratios(together: Subjected) -> None:
    configurations = together(replace(SCRIPT, die_at=3), TIMED)
    with Harness(QUICK, LISTENER) as harness:
        reference, other = finished(harness, configurations)
    assert (reference.result.status, other.result.status) == ("error", "ok")
    assert (other.ratio, other.verdict, other.agreement, other.changed_predictions) == (None,) * 4
    assert other.result.predictions is not None


def interrupted() -> None:
    raise KeyboardInterrupt


def terminated() -> None:
    raise SystemExit(143)


@pytest.mark.parametrize(("act", "kind"), [(interrupted, KeyboardInterrupt), (terminated, SystemExit)])
def test_an_early_end_gives_what_the_finished_processes_gave(
    together: Subjected, act: Callable[[], None], kind: type[BaseException]
) -> None:
    configurations = together(TIMED, delayed(0.002), Refusal("failed", Reason("gate", "its gate")))
    results: list[Result] = []
    with (
        Harness(TWICE, listening("process 2 of 2 · round 1", act)) as harness,
        pytest.raises(kind),
    ):
        results.extend(race(harness, configurations))  # a list keeps what came before
    found = Figures.of_all(results)
    states = [(result.status, result.identity.precision, len(result.samples)) for result in results]
    assert states == [("ok", "fp32", 1), ("ok", "fp16", 1), ("failed", "bf16", 0)]
    for figures in found[:2]:
        assert "processes-missing" in [warning.code for warning in figures.warnings]
    assert found[1].ratio is not None
    assert found[1].images == 20


def test_what_an_early_end_leaves_is_listed_as_not_reached(together: Subjected) -> None:
    """The rest of the trial at work, and all trials after it, under a load too."""
    configurations = together(TIMED, Refusal("failed", Reason("gate", "its gate")))
    turns = Trial(tuple(configurations))
    load = Trial(tuple(configurations[:1]), load=ArrivalPlan("single-stream", 0.02))
    for trials in ([turns, load], [load, turns]):
        found: list[Result] = []
        at = "round 1" if trials[0] is turns else "start"
        with Harness(QUICK, listening(at, interrupted)) as harness, pytest.raises(KeyboardInterrupt):
            found.extend(harness.measure(iter(trials)))
        assert sorted((each.status, each.reason and each.reason.code) for each in found) == [
            ("failed", "gate"),
            ("skipped", "not-reached"),
            ("skipped", "not-reached"),
        ]


def test_the_time_left_counts_the_trials_to_come(together: Subjected) -> None:
    configurations = together(TIMED)
    left: list[float | None] = []
    with Harness(TWICE, RunListener(lambda *_: None, lambda _: None, left.append)) as harness:
        alone = list(harness.measure([Trial(tuple(configurations))]))
        assert {*left} == {None}  # there is no plan
        left.clear()
        harness.announce(RunPlan(harness.request, (Workload(),) * 3))
        list(harness.measure([Trial(tuple(configurations), later_s=(0.0, 100.0))]))
    assert alone[0].status == "ok"
    each_s = Workload().seconds(TWICE, USUAL)
    assert left[0] is not None
    assert left[0] > 100 + 2.5 * each_s  # the moments since it began are taken off; a busy machine has more left
    assert left[-1] is not None
    assert left[-1] > 100


def test_the_next_trial_is_asked_for_when_the_rows_were_taken(together: Subjected) -> None:
    configurations = together(TIMED, delayed(0.002))
    rows_taken: list[Result] = []
    seen: list[int] = []

    def trials() -> Iterator[Trial]:
        for configuration in configurations:
            seen.append(len(rows_taken))
            yield Trial((configuration,))

    with Harness(QUICK, LISTENER) as harness:
        for row in harness.measure(trials()):
            rows_taken.append(row)
    assert seen == [0, 1]


def test_a_load_is_measured_in_one_process(together: Subjected) -> None:
    configurations = together(TIMED)
    steps: list[tuple[str, str]] = []
    listener = RunListener(lambda title, step: steps.append((title, step)), lambda _: None)
    trial = Trial(tuple(configurations), load=ArrivalPlan("single-stream", 0.02), title="load", remark=" (remark)")
    with Harness(replace(QUICK, processes=3), listener) as harness:
        (result,) = harness.measure([trial])
    assert (result.status, result.asked.group, result.samples, result.ran.provider) == ("ok", None, (), "script")
    assert result.load is not None
    assert (result.load.shape, len(result.load.services_s) > 1) == ("single-stream", True)
    assert {title for title, _ in steps} == {"load"}
    assert steps[0][1] == "start (remark)"


@pytest.mark.parametrize("shape", ["single-stream", "cold"])
def test_a_load_that_fails_is_a_row_with_its_reason(together: Subjected, shape: str) -> None:
    configurations = together(replace(SCRIPT, fail_at=0))
    plan = ArrivalPlan("cold" if shape == "cold" else "single-stream", 0.02)
    with Harness(QUICK, LISTENER) as harness:
        (result,) = harness.measure([Trial(tuple(configurations), load=plan)])
    assert (result.status, result.load) == ("error", None)
    assert "call 0" in str(result.reason)


KNOWN = Ceilings("cpu", 3, {"float32": 1e12})


def test_the_ceilings_are_measured_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str]] = []

    def measured(threads: int, device: str) -> Ceilings:
        asked.append((threads, device))
        return Ceilings(device, threads, missing="not measured: no library")

    monkeypatch.setattr(ceilings, "measure_ceilings", measured)
    notices: list[str | Reason] = []
    listener = RunListener(lambda *_: None, notices.append)
    with Harness(replace(QUICK, threads=3), listener) as harness:
        harness.measure_ceilings()
    assert (asked, notices) == ([], [])
    with Harness(replace(QUICK, threads=3, roofline=True), listener) as harness:
        harness.measure_ceilings()
        assert harness.measure_ceilings(KNOWN) == KNOWN
    (notice,) = notices
    assert asked == [(3, "cpu")]  # known ceilings are not measured again
    assert str(notice).endswith(": no library")


@pytest.mark.parametrize(
    ("change", "kind", "value"),
    [
        ({"backends": ("tensorflow",)}, UsageError, "'tensorflow'"),
        ({"backends": ("onnxruntime",)}, UsageError, "onnxruntime"),
        ({"subjects": ("resnet21",)}, UsageError, "'resnet21'"),
        ({"subjects": ("no/such/resnet20.onnx",)}, ResourceError, "no such file"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(
    tmp_path: Path, change: dict[str, tuple[str, ...]], kind: type[RexportError], value: str
) -> None:
    request = replace(QUICK, subjects=(str(artifact(tmp_path)),), roofline=True)
    told: list[str] = []
    with pytest.raises(kind, match=value):
        list(runs.run(replace(request, **change), RunListener(lambda name, _: told.append(name), told.append)))  # type: ignore[arg-type]
    assert told == []


def test_images_need_a_file_that_says_how_they_are_prepared(tmp_path: Path) -> None:
    request = replace(QUICK, subjects=(str(foreign(tmp_path)),), data="fashion-mnist")
    with refuses(ModelMismatchError, "preprocessing-unknown", "--data"):
        measured(request)


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
    found = measured(replace(QUICK, subjects=(str(artifact(tmp_path, TIMED)),), data=str(data), limit=None))
    figures = found[-1]
    evaluation = figures.result.evaluation
    assert evaluation is not None
    assert (figures.result.status, figures.images, evaluation.unreadable) == ("ok", 19, 1)
    assert "class3/a.png" in (figures.result.note or "")
    # The scripted network calls a bright image 9 and a dark one 0: right for one image of class 9 and one of class 0.
    assert value(figures.top1) == 2 / 19
    assert figures.image_p50 is not None
    assert "inputs-flat" in [warning.code for warning in figures.warnings]
    assert runs.exit_code(found, BenchmarkRequest()) == 1


def test_data_of_other_classes_are_refused_and_the_file_is_named(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "photos", 4)
    with pytest.raises(ModelMismatchError, match=r"net\.fake: .* 4 .* 10 "):
        measured(replace(QUICK, subjects=(str(artifact(tmp_path)),), data=str(data)))


@pytest.mark.slow
def test_a_variant_is_exported_and_compared_with_pytorch() -> None:
    for library in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    notices: list[str | Reason] = []
    request = replace(
        TWICE, subjects=("resnet20",), backends=("onnxruntime",), baseline="pytorch", limit=16, roofline=True
    )
    reference, other = measured(request, RunListener(lambda *_: None, notices.append))
    states = [(each.result.identity.backend, each.result.status) for each in (reference, other)]
    assert states == [("pytorch", "ok"), ("onnxruntime", "ok")]
    assert (value(reference.ratio), value(reference.agreement)) == (1.0, 1.0)
    assert other.ratio is not None
    assert (other.ratio.interval, other.verdict) == (None, None)  # of two processes
    of = other.result.identity
    assert (value(other.agreement), other.images, of.data, other.top1) == (1.0, 16, "noise", None)
    assert (of.weights, of.trained) == ("random", False)
    assert any("untrained" in notice for notice in notices)
    for each in (reference, other):
        assert each.roofline_share is not None
        assert each.roofline_share > 0
        assert len(each.result.samples) == 2
    work = {each.result.roof.multiply_adds for each in (reference, other) if each.result.roof is not None}
    assert len(work) == 1


UNSEEN = Figures(EMPTY)
QUIET = change(EMPTY, disturbances=())
DISTURBED = change(QUIET, validity_reason=Reason("machine-busy", "other processes used 40 % of the CPUs"))


def loaded(load: LoadResult) -> Figures:
    return Figures(change_facts(EMPTY, load=load))


@pytest.mark.parametrize(
    ("found", "strict", "code"),
    [
        ([QUIET, SKIPPED], True, 0),
        ([QUIET, UNSEEN], True, 1),  # nobody looked
        ([QUIET, UNSEEN], False, 0),
        ([QUIET, loaded(LoadResult("cold", (0.1,), (0.3,), 3.0))], True, 0),
        ([QUIET, loaded(LoadResult("single-stream", (0.1,), (0.1,), 3.0))], True, 1),
        ([QUIET, DISTURBED], True, 1),
        ([UNSEEN, DISTURBED], False, 0),
        ([change(QUIET, disturbances=(Reason("others-busy", "a little"),))], True, 0),
        ([QUIET, change(DISTURBED, status="skipped")], True, 0),  # there is no number that was disturbed
    ],
)
def test_strict_makes_a_busy_machine_a_failure(found: list[Figures], strict: bool, code: int) -> None:
    assert runs.exit_code(found, BenchmarkRequest(strict=strict)) == code


@pytest.mark.parametrize(
    ("found", "runtimes", "precisions", "code"),
    [
        ([UNSEEN], (), (), 0),
        ([UNSEEN, SKIPPED], (), (), 0),
        ([UNSEEN, SKIPPED], ("openvino",), (), 5),
        ([SKIPPED], (), (), 5),
        ([], (), (), 5),
        ([UNSEEN, change(EMPTY, status="failed")], (), (), 1),
        ([UNSEEN, SKIPPED, change(EMPTY, status="error")], ("openvino",), (), 1),
        ([change(EMPTY, evaluation=Evaluation(1))], (), (), 1),
        ([change(EMPTY, evaluation=Evaluation(0))], (), (), 0),
        ([UNSEEN, change(EMPTY, status="skipped", precision="bf16")], ("onnxruntime",), ("fp32",), 0),
        ([UNSEEN, change(EMPTY, status="skipped", precision="bf16")], (), ("fp32", "bf16"), 5),
        ([change(SKIPPED, precision="bf16"), change(EMPTY, precision="bf16")], (), ("bf16",), 0),
        ([change(EMPTY, precision="int8"), change(EMPTY, precision="bf16")], (), ("int8", "bf16"), 0),
    ],
)
def test_exit_codes(found: list[Figures], runtimes: tuple[str, ...], precisions: tuple[str, ...], code: int) -> None:
    assert runs.exit_code(found, BenchmarkRequest(backends=runtimes, precisions=precisions)) == code
