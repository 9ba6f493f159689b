from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

from benchmarks.accuracy.differences import Flips
from benchmarks.analysis.figures import Figures
from benchmarks.machine.gpu_conditions import GpuConditions
from benchmarks.records.result import GpuUse, RoofInputs
from benchmarks.records.samples import LoadResult
from benchmarks.report import columns, run
from benchmarks.report.document import GPU_WIDTH, run_document
from benchmarks.report.run import RunPlots
from benchmarks.stats.comparison import NO_DIFFERENCE
from exporter.document.blocks import PLAIN_WIDTH, Document, Remark, Section, Sentence, Table
from exporter.document.terminal import as_text, print_document
from runtimes.errors import Reason
from tests.benchmarks.results import (
    BUSY,
    EMPTY,
    FASTER,
    IDLE,
    MACHINE,
    ON_A_GPU,
    QUIET,
    REFERENCE,
    SKIPPED,
    change,
    change_facts,
    estimate,
)
from tests.documents import lines, printed, remarks, tables

ROWS = (REFERENCE, FASTER, SKIPPED)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def section(*rows: Figures) -> Section:
    """The only one of these rows."""
    (found,) = run.sections(rows)
    return found


def summary(document: Document) -> list[tuple[str, str]]:
    """Kinds and codes of what is said of all rows."""
    return [(remark.kind, remark.code) for remark in document.summary.remarks]


def terminal_text(monkeypatch: pytest.MonkeyPatch, document: Document, columns: int) -> str:
    """The document as a terminal of that width shows it, without colours."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    print_document(document, file)
    return re.sub("\x1b\\[[0-9;]*m", "", file.getvalue())


def test_a_plain_table_fits_100_columns_and_marks_the_fastest() -> None:
    text = as_text(run_document(ROWS))
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    rows = printed(run_document(ROWS))
    assert {
        "pytorch fp32 1 2.50 ± 0.06 1.00x 398 93.61 0.00",
        "> onnxruntime int8 1 0.410 ± 0.006 6.10x ± 0.15 2,430 93.49 -0.12 ± 0.17",
    } <= set(rows)
    assert "Marked: the fastest of each batch size." in rows


def test_each_kind_of_figure_has_a_table() -> None:
    main, latency, accuracy, cost = map(lines, tables(section(*ROWS)))
    assert [row["p50 ms"] for row in main] == ["2.50 ± 0.06", "0.410 ± 0.006"]
    assert [row["executed as"] for row in main] == ["float32", "int8 (53 of 54), float32 (1 of 54)"]
    assert (main[1]["vs baseline"], main[1]["agreement %"]) == ("6.10x ± 0.15", "99.99")
    assert latency[1] == {
        "backend": "onnxruntime",
        "precision": "int8",
        "batch": "1",
        "p90 ms": "0.440",
        "inference only ms": "0.390 ± 0.061",
    }
    assert (accuracy[0]["top-1 %"], accuracy[0]["change pp"], accuracy[0]["evaluated/s"]) == (
        "93.61 ± 0.50",
        "0.00",
        "1,480",
    )
    assert (accuracy[1]["change pp"], accuracy[1]["agreement %"]) == ("-0.12 ± 0.17", "99.99")
    assert (cost[0]["load s"], cost[0]["peak MB"]) == ("2.25", "312")


@pytest.mark.parametrize(
    ("columns", "shown", "left_out"),
    [
        (200, ["p99 ms", "images/s", "top-1 %", "change pp", "agreement %", "executed as"], ""),
        (140, ["p99 ms", "images/s", "top-1 %", "change pp", "agreement %"], "executed as"),
        (100, ["images/s", "top-1 %", "change pp"], "p99 ms, agreement %, executed as"),
        (80, ["top-1 %"], "p99 ms, images/s, change pp, agreement %, executed as"),
        (60, [], "p99 ms, images/s, top-1 %, change pp, agreement %, executed as"),
    ],
)
def test_a_narrow_terminal_leaves_out_unimportant_columns(
    monkeypatch: pytest.MonkeyPatch, columns: int, shown: list[str], left_out: str
) -> None:
    text = terminal_text(monkeypatch, run_document(ROWS), columns)
    head = next(line for line in text.splitlines() if "backend" in line)
    optional = ["p99 ms", "images/s", "top-1 %", "change pp", "agreement %", "executed as"]
    assert [name for name in optional if name in head] == shown
    said = " ".join(text.split())
    assert (f"Left out at {columns} characters: {left_out}. -o DIR writes" in said) == bool(left_out)
    assert max(map(len, text.splitlines())) <= max(columns, 63)


def test_a_terminal_never_cuts_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    text = terminal_text(monkeypatch, run_document(ROWS), 30)
    assert "0.410 ± 0.006  6.10x ± 0.15" in text
    assert "> " in text


def test_folded_tables_are_shown_on_request_alone() -> None:
    brief, long = run_document(ROWS), run_document(ROWS, explain=True)
    assert (brief.legend, long.legend) == ((), columns.meaning(ROWS))
    assert "peak MB" not in as_text(brief)
    assert "peak MB" in as_text(long)
    assert len(as_text(brief).splitlines()) <= 20


def test_untrained_weights_are_marked_in_every_title() -> None:
    untrained = [change(row, weights="random", trained=False) for row in ROWS]
    assert "*untrained*" in section(*untrained).title
    assert "untrained" not in as_text(run_document(ROWS))


def test_noise_is_labelled_and_has_no_accuracy_columns() -> None:
    rows = [change(row, data="noise", top1=None, top5=None, top1_change=None, images=64) for row in ROWS]
    found = section(*rows)
    headings = {heading for table in found.all_of(Table) for heading in table.headings}
    assert ("noise" in found.title, "64 images" in found.title) == (True, True)
    assert ("top-1 %" in headings, "agreement %" in headings) == (False, True)


def test_rows_that_are_not_ok_stand_with_their_reason() -> None:
    broken = change(EMPTY, status="error", reason="ended by SIGSEGV", backend="openvino")
    found = section(broken)
    (remark,) = found.all_of(Remark)
    assert (remark.kind, remark.code) == ("failure", "error")
    assert all(word in remark.text for word in ("openvino fp32", "batch 1", "ended by SIGSEGV"))
    assert tables(found)[0].rows == ()
    assert [row.state for row in found.all_of(Table)[0].rows] == ["missing"]
    assert "p50" not in as_text(run_document([broken])).split("\n\n")[0]


def test_what_is_said_of_many_rows_is_said_once() -> None:
    alike = [change(SKIPPED, precision=name, batch=batch) for batch in (1, 64) for name in ("fp32", "fp16")]
    other = change(SKIPPED, precision="bf16", reason="no kernel")
    first, second = remarks(section(*alike, other))
    assert first.startswith("openvino fp32, fp16, batch 1, 64: ")
    assert second.startswith("openvino bf16, batch 1: ")


def test_notes_and_libraries_stand_beneath() -> None:
    found = section(REFERENCE, change(FASTER, notes=(Reason("unusual", "unusual"),)))
    assert remarks(found, "note")[0] == "onnxruntime int8, batch 1: unusual"
    assert "onnxruntime 1.32.0 (CPUExecutionProvider)" in remarks(found)[-1]
    assert remarks(found, "warning", "failure") == []


def test_an_interrupted_run_says_so() -> None:
    incomplete = ("failure", "incomplete")
    assert summary(run_document([REFERENCE], complete=False))[0] == incomplete
    assert summary(run_document([], complete=False)) == [incomplete]
    assert incomplete not in summary(run_document([REFERENCE]))
    assert as_text(run_document([], complete=False)).startswith("Incomplete: ")


def test_each_subject_has_its_own_section() -> None:
    twin = change(REFERENCE, artifact="resnet20.pt2", sha256="ef" * 32)
    other = change(FASTER, artifact="resnet56.onnx", sha256="cd" * 32, variant="resnet56", subject="resnet56.onnx")
    found = run.sections((twin, *ROWS, other))
    assert [one.title.split(" ")[0] for one in found] == ["resnet20.onnx", "resnet56.onnx"]


def test_older_rows_are_grouped_by_their_artifacts() -> None:
    old = [change(row, subject=None) for row in (*ROWS, change(FASTER, artifact="resnet56.onnx", sha256="cd" * 32))]
    assert [one.title.split(" ")[0] for one in run.sections(old)] == ["resnet20.onnx", "resnet56.onnx"]


def test_a_variant_is_named_once() -> None:
    found = section(*(change(row, subject="resnet20") for row in ROWS))
    assert found.title.split(" · ")[0] == "resnet20, bundled weights"


def test_a_row_without_predictions_stands_in_no_accuracy_table() -> None:
    nothing = dict.fromkeys(("images", "top1", "top5", "agreement", "top1_change", "evaluation"))
    second = change(FASTER, batch=8, **nothing)
    assert [len(table.rows) for table in tables(section(*ROWS, second))] == [3, 3, 2, 3]


def test_the_environment_in_one_line() -> None:
    assert run.machine(EMPTY).split(" · ") == [
        "Fast Processor 9",
        "2 of 4 processors",
        "avx2 avx512f",
        "8 GiB",
        "Linux 6.1, CPython 3.11.7",
        "load 0.50",
    ]


def test_the_instruction_sets_that_make_int8_fast_are_named() -> None:
    sets = ("f16c", "fma", "avx2", "avx512f", "avx512_vnni", "amx_int8")
    result = change_facts(EMPTY, environment=replace(MACHINE, instruction_sets=sets))
    assert " ".join(sets[2:]) in run.machine(result).split(" · ")


def test_a_gpus_rows_have_its_own_clock_and_its_state() -> None:
    without = change(ON_A_GPU, cuda_graphs=False, p50=estimate(0.0008, (0.000405, 0.001)), gpu=GpuUse(IDLE, BUSY))
    rows = (change(REFERENCE, cuda_graphs=True, device="cuda"), ON_A_GPU, without)
    document = run_document(rows, explain=True)
    main, latency, _, _, gpu = (lines(table) for one in run.sections(rows[1:]) for table in tables(one))
    assert [row["graphs"] for row in main] == ["–", "off"]
    assert [row["p50 ms"] for row in main] == ["0.410 ± 0.006", "0.800 ± 0.395"]
    assert latency[0]["device ms"] == "0.321"
    assert main[0]["executed as"] == "float16"
    assert [gpu[0][name] for name in ("MHz", "W", "clock limit", "GPU MB", "mJ/image")] == [
        *("345→1,755", "76→695", "power cap, sync boost", "1,049", "12.30"),
    ]
    assert gpu[1]["mJ/image"] == "–"
    assert document.plain_width == GPU_WIDTH > PLAIN_WIDTH
    assert "mJ/image" in dict(document.legend)
    assert max(map(len, as_text(document).splitlines())) <= GPU_WIDTH


def test_a_gpus_clock_is_that_of_all_turns() -> None:
    """The lowest and highest of all processes; watts and their error are those of the runs with the energy."""
    turns = (GpuConditions(1.0, (1500, 1755), ("power cap",)), GpuConditions(1.0, (1620, 1980), ("power brake",)))
    seen = tuple(
        replace(process, conditions=replace(QUIET, gpu=gpu))
        for process, gpu in zip(ON_A_GPU.result.samples, turns, strict=False)
    )
    use = GpuUse(IDLE, BUSY, 1_048_576_000, 0.0123, 0.033, 512.3)
    measured = change(ON_A_GPU, samples=seen, gpu=use)
    row = lines(tables(section(measured))[-1])[0]
    assert (row["MHz"], row["W"], row["mJ/image"]) == ("1,500–1,980", "512", "12.3 ± 0.4")
    assert row["clock limit"].split(", ") == ["power cap", "power brake", "sync boost"]
    steady = change(measured, samples=(replace(seen[0], conditions=replace(QUIET, gpu=GpuConditions(1.0, (7, 7)))),))
    assert lines(tables(section(steady))[-1])[0]["MHz"] == "7"


def test_a_busy_gpu_is_a_line_below_the_table_and_invalid() -> None:
    gpu = GpuConditions(1.0, (1980, 1980), foreign_share=0.4, processes=("python3 (7)",))
    seen = tuple(replace(each, conditions=replace(QUIET, gpu=gpu)) for each in ON_A_GPU.result.samples)
    busy = change(ON_A_GPU, samples=seen)
    text = as_text(run_document((busy,)))
    assert "python3 (7)" in text
    assert "40 %" in text
    assert busy.validity == "INVALID"


def test_a_processors_tables_say_nothing_of_a_gpu() -> None:
    headings = {heading for table in section(*ROWS).all_of(Table) for heading in table.headings}
    assert not {"graphs", "device ms", "MHz", "GPU MB"} & headings
    assert "graphs" not in as_text(run_document(ROWS))


def test_a_gpu_that_is_not_held_back_and_one_without_sensors() -> None:
    state = replace(BUSY, throttle=(), sm_mhz=None, power_w=None)
    figures = change(ON_A_GPU, gpu=GpuUse(after=state, energy_per_image_j=0.0123))
    (line,) = lines(tables(section(figures))[-1])
    assert line == {
        "backend": "onnxruntime",
        "precision": "fp16",
        "batch": "1",
        "clock limit": "none",
        "mJ/image": "12.30",
    }


def test_the_gpu_that_was_used_is_named() -> None:
    assert "NVIDIA H200, driver 580.159.03, CUDA 13.0" in run.machine(ON_A_GPU.result).split(" · ")
    assert "Another GPU" not in run.machine(ON_A_GPU.result)
    unwatched = change_facts(ON_A_GPU.result, gpu=GpuUse())
    assert run.graphics(unwatched).split(" and ")[0] == "Another GPU, driver 580.159.03, CUDA 13.0"
    blind = replace(unwatched, environment=EMPTY.environment)
    assert "no NVML" in run.graphics(blind)


def test_a_row_without_graphs_is_named_so_in_remarks() -> None:
    row = change(ON_A_GPU, cuda_graphs=False, status="error", reason="broke")
    assert "no CUDA graphs" in remarks(section(row), "failure")[0]


FULL = change(
    FASTER,
    p50=estimate(0.0123, (0.01221, 0.01246)),
    p99=estimate(0.123),
    p999=estimate(0.456),
    compute_p50=estimate(0.00039, (0.000385, 0.000395)),
    image_p50=estimate(0.0021),
    ratio=estimate(12.34, (12.01, 12.67)),
    roof=RoofInputs(41_000_000, 300_000, 4e11, 2e10),
    changed_predictions=Flips(4, 6, 0.75, 9, 1, (0.00002, 0.0006)),
    disturbances=(Reason("others-busy", "other processes used up to 8 % of the CPUs (limit 5 %)"),),
    warnings=(Reason("latency-drifted", "latency drifted (+6.0 %)"),),
)
"""Something in every column."""


def test_every_column_of_a_processors_tables_fits() -> None:
    document = run_document([REFERENCE, FULL, SKIPPED], explain=True)
    assert max(map(len, as_text(document).splitlines())) <= PLAIN_WIDTH
    main, latency, accuracy, _ = (lines(table)[1] for table in tables(section(REFERENCE, FULL, SKIPPED)))
    assert list(main.values())[3:] == [
        *("12.3 ± 0.2", "12.3x ± 0.4", "123", "2,430", "93.49", "-0.12 ± 0.17", "99.99"),
        "int8 (53 of 54), float32 (1 of 54)",
    ]
    assert list(latency.values())[3:] == ["0.440", "456", "0.390 ± 0.005", "26", "2.10"]
    assert (accuracy["changed"], accuracy["evaluated/s"]) == ("1 + 9", "5,210")


def test_a_page_marks_the_fastest_and_shows_missing_rows() -> None:
    (main, *_) = section(REFERENCE, FASTER, SKIPPED).all_of(Table)
    assert [row.state for row in main.rows] == ["", "best", "missing"]
    assert [row.attributes["backend"] for row in main.rows] == ["pytorch", "onnxruntime", "openvino"]
    assert main.rows[1].attributes["words"].startswith("onnxruntime int8 1")
    assert main.cells[2][4] == "skipped"


def test_a_ratio_without_significance_is_marked_and_explained() -> None:
    alike = change(FASTER, ratio=estimate(1.01, (0.98, 1.04)), verdict=NO_DIFFERENCE)
    noisy = change(FASTER, ratio=estimate(1.01, (0.3, 3.4)), verdict=NO_DIFFERENCE)
    found = section(REFERENCE, alike)
    assert lines(tables(found)[0])[1]["vs baseline"] == "1.01x ± 0.03 n.s."
    assert any("n.s.: no significant difference." in one.text for one in found.all_of(Sentence))
    found = section(REFERENCE, noisy)
    assert lines(tables(found)[0])[1]["vs baseline"] == "1.01x too noisy"
    assert any("too noisy: " in one.text and "n.s." not in one.text for one in found.all_of(Sentence))


def test_a_warning_is_given_once_for_all_rows() -> None:
    drifts = [
        change(FASTER, batch=batch, warnings=(Reason("latency-drifted", f"latency drifted (+{batch}.0 %)"),))
        for batch in (1, 2, 3, 4, 5)
    ]
    alike = [change(one, warnings=(Reason("odd", "odd"),)) for one in drifts[:2]]
    (drifted,) = remarks(section(REFERENCE, *drifts), "warning")
    assert drifted == (
        "5 of 6 rows: latency drifted: onnxruntime int8, batch 1 (+1.0 %); onnxruntime int8, batch 2 (+2.0 %); "
        "onnxruntime int8, batch 3 (+3.0 %); and 2 more rows"
    )
    assert remarks(section(*alike), "warning") == ["onnxruntime int8, batch 1; onnxruntime int8, batch 2: odd"]
    assert remarks(section(drifts[0]), "warning") == ["onnxruntime int8, batch 1: latency drifted (+1.0 %)"]


def test_a_cause_has_one_line_with_its_worst_figure() -> None:
    busy = [
        change_facts(
            FASTER.result,
            batch=batch,
            samples=tuple(
                replace(one, conditions=replace(QUIET, foreign_cores=cores, pressure_share=0.9, mhz=(3000.0, 2000.0)))
                for one in FASTER.result.samples
            ),
        )
        for batch, cores in ((1, 0.5), (2, 1.6))
    ]
    assert remarks(section(REFERENCE, *map(Figures, busy)), "warning") == [
        "2 of 3 rows: other processes used up to 80 % of the CPUs (limit 5 %)",
        "2 of 3 rows: the CPU's frequency went from 3,000 to 2,000 MHz (limit: a change of 5 %)",
    ]


def test_warnings_and_disturbances_stand_beneath() -> None:
    found = section(REFERENCE, FULL)
    disturbed, warning = (one for one in found.all_of(Remark) if one.kind == "warning")
    assert FULL.disturbances is not None
    assert (disturbed.code, disturbed.text) == ("others-busy", f"1 of 2 rows: {FULL.disturbances[0]}")
    assert (warning.code, warning.text.endswith("(+6.0 %)")) == ("latency-drifted", True)


def test_the_headline_stands_over_the_table() -> None:
    first, second, *_ = section(*ROWS).blocks
    assert isinstance(first, Sentence)
    assert first.role == "headline"
    assert first.text.startswith("ResNet-20: ONNX Runtime int8 is ")
    assert isinstance(second, Table)


def test_rows_of_other_machines_stand_apart() -> None:
    elsewhere = change(FASTER, environment=replace(MACHINE, cpu="Slow Processor 1"))
    assert run.groups([REFERENCE, elsewhere, FASTER]) == ((REFERENCE, FASTER), (elsewhere,))


def test_rows_of_load_shapes_stand_in_no_latency_table() -> None:
    found = section(REFERENCE, change(FASTER, load=LoadResult("single-stream", (0.1,), (0.1,), 10.0)))
    assert {len(table.rows) for table in found.all_of(Table)} == {1}


def test_only_measured_rows_are_plotted() -> None:
    assert section(*ROWS).all_of(RunPlots) == (RunPlots((REFERENCE, FASTER), (FASTER,)),)


@pytest.mark.parametrize(
    ("reason", "kind", "code"),
    [
        (None, "note", "run-valid"),
        (Reason("machine-busy", "busy"), "warning", "run-invalid"),
        (Reason("processes-too-few", "few"), "warning", "run-preliminary"),
    ],
)
def test_the_verdict_on_the_run_is_the_last_line(reason: Reason | None, kind: str, code: str) -> None:
    document = run_document([REFERENCE, change(FASTER, validity_reason=reason), SKIPPED])
    assert summary(document) == [(kind, code)]
    assert as_text(document).splitlines()[-1].startswith(code.removeprefix("run-").upper())
    assert list(run.verdict([SKIPPED])) == list(run.verdict([])) == []
