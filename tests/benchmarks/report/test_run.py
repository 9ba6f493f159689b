from __future__ import annotations

import io
from dataclasses import replace

import pytest

from benchmarks.accuracy.differences import Flips
from benchmarks.analysis.figures import Figures
from benchmarks.records.result import GpuUse, RoofInputs
from benchmarks.records.samples import LoadResult
from benchmarks.report import run
from benchmarks.report.document import GPU_WIDTH, run_document
from benchmarks.report.run import RunPlots
from exporter.document.blocks import PLAIN_WIDTH, Document, Remark, Section, Sentence, Summary, Table
from exporter.document.terminal import as_text, print_document
from runtimes.errors import Reason
from tests.benchmarks.results import (
    BUSY,
    EMPTY,
    FASTER,
    IDLE,
    MACHINE,
    ON_A_GPU,
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


def test_a_plain_table_is_100_columns_wide_at_most() -> None:
    text = as_text(run_document(ROWS))
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    rows = printed(run_document(ROWS))
    assert {
        "pytorch fp32 1 2.50 [2.45–2.56] 3.10 398 1.00 –",
        "onnxruntime int8 1 0.410 [0.405–0.416] 0.520 2,430 6.10 [5.95–6.21] faster",
    } <= set(rows)


def test_each_kind_of_figure_has_a_table() -> None:
    speed, spans, worth, cost = map(lines, tables(section(*ROWS)))
    assert [row["p50 ms"] for row in speed] == ["2.50 [2.45–2.56]", "0.410 [0.405–0.416]"]
    assert spans[1] == {
        "runtime": "onnxruntime",
        "precision": "int8",
        "batch": "1",
        "p90 ms": "0.440",
        "compute": "0.390 [0.337–0.451]",
    }
    assert (worth[0]["top-1 %"], worth[0]["drop"], worth[0]["eval/s"]) == ("93.61 [93.1–94.1]", "0.00", "1,480")
    assert (worth[1]["drop"], worth[1]["same %"]) == ("0.12 [-0.05, 0.29]", "99.99")
    assert (cost[0]["ran"], cost[0]["load s"], cost[0]["peak MB"]) == ("float32", "2.25", "312")
    assert cost[1]["ran"] == "int8 (53 of 54), float32 (1 of 54)"


@pytest.mark.parametrize("columns", ["80", "100"])
def test_a_terminals_table_fits_it(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    file = Terminal()
    print_document(run_document(ROWS), file)
    assert max(map(len, file.getvalue().splitlines())) <= int(columns)
    assert "0.410" in file.getvalue()


def test_untrained_weights_are_marked_in_every_title() -> None:
    untrained = [change(row, weights="random", trained=False) for row in ROWS]
    assert "*untrained*" in section(*untrained).title
    assert "untrained" not in as_text(run_document(ROWS))


def test_noise_is_labelled_and_has_no_accuracy_columns() -> None:
    rows = [change(row, data="noise", top1=None, top5=None, images=64) for row in ROWS]
    found = section(*rows)
    headings = {heading for table in found.all_of(Table) for heading in table.headings}
    assert ("noise" in found.title, "64 images" in found.title) == (True, True)
    assert ("top-1 %" in headings, "same %" in headings) == (False, True)


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
    nothing = dict.fromkeys(("images", "top1", "top5", "agreement", "drop", "evaluation"))
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
    without = change(ON_A_GPU, cuda_graphs=False, p50=estimate(0.0008, (0.000405, 0.000416)), gpu=GpuUse(IDLE, BUSY))
    rows = (change(REFERENCE, cuda_graphs=True, device="cuda"), ON_A_GPU, without)
    document = run_document(rows)
    speed, spans, _, cost, gpu = (lines(table) for one in run.sections(rows[1:]) for table in tables(one))
    assert [row["graphs"] for row in speed] == ["–", "off"]
    assert [row["p50 ms"] for row in speed] == ["0.410 [0.405–0.416]", "0.800 [0.405–0.416]"]
    assert spans[0]["device"] == "0.321"
    assert cost[0]["ran"] == "float16"
    assert [gpu[0][name] for name in ("MHz", "W", "held by", "GPU MB", "mJ/image")] == [
        *("345→1,755", "76→695", "power cap, sync boost", "1,049", "12.30"),
    ]
    assert gpu[1]["mJ/image"] == "–"
    assert document.plain_width == GPU_WIDTH > PLAIN_WIDTH
    assert any(line.startswith("compute ends by") for line in document.legend)
    assert max(map(len, as_text(document).splitlines())) <= GPU_WIDTH


def test_a_processors_tables_say_nothing_of_a_gpu() -> None:
    headings = {heading for table in section(*ROWS).all_of(Table) for heading in table.headings}
    assert not {"graphs", "device", "MHz", "GPU MB"} & headings
    assert "graphs" not in as_text(run_document(ROWS))


def test_a_gpu_that_is_not_held_back_and_one_without_sensors() -> None:
    state = replace(BUSY, throttle=(), sm_mhz=None, power_w=None)
    figures = change(ON_A_GPU, gpu=GpuUse(after=state, energy_per_image_j=0.0123))
    (line,) = lines(tables(section(figures))[-1])
    assert line == {
        "runtime": "onnxruntime",
        "precision": "fp16",
        "batch": "1",
        "held by": "nothing",
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
    flips=Flips(4, 6, 0.75, 9, 1, (0.00002, 0.0006)),
    disturbances=(Reason("others-busy", "others used 0.93 of 2 processors while it was timed; up to 0.10 is quiet"),),
    warnings=(Reason("latency-drifted", "the latency rose by 6 %"),),
)
"""Something in every column."""


def test_every_column_of_a_processors_tables_fits() -> None:
    assert max(map(len, as_text(run_document([REFERENCE, FULL, SKIPPED])).splitlines())) <= PLAIN_WIDTH
    speed, spans, worth, _ = (lines(table)[1] for table in tables(section(REFERENCE, FULL, SKIPPED)))
    assert list(speed.values())[3:] == [
        *("12.3 [12.2–12.5]", "123", "2,430", "12.34 [12.01–12.67]", "faster", "!"),
    ]
    assert list(spans.values())[3:] == ["0.440", "456", "0.390 [0.385–0.395]", "26", "2.10"]
    assert (worth["flips"], worth["eval/s"]) == ("1+9", "5,210")


def test_a_page_has_the_accuracy_beside_the_speed() -> None:
    (main, *_) = section(REFERENCE, FULL, SKIPPED).all_of(Table)
    assert main.headings[-4:] == ("verdict", "top-1 %", "drop", "!")
    assert main.narrow().headings[-2:] == ("verdict", "!")
    assert [row.state for row in main.rows] == ["", "best", "missing"]
    assert [row.attributes["runtime"] for row in main.rows] == ["pytorch", "onnxruntime", "openvino"]
    assert main.rows[1].attributes["words"].split() == ["onnxruntime", "int8", "1", "faster", "!"]


def test_warnings_and_disturbances_stand_beneath() -> None:
    found = section(REFERENCE, FULL)
    disturbed, warning = (one for one in found.all_of(Remark) if one.kind == "warning")
    assert disturbed.code == "machine-disturbed"
    assert FULL.disturbances is not None
    assert disturbed.text.endswith(str(FULL.disturbances[0]))
    assert (warning.code, warning.text.endswith("6 %")) == ("latency-drifted", True)
    assert "!" not in tables(section(REFERENCE, FASTER))[0].headings


def test_the_headline_stands_over_the_table() -> None:
    first, second, *_ = section(*ROWS).blocks
    assert isinstance(first, Sentence)
    assert first.role == "headline"
    assert first.text.startswith("Batch 1: onnxruntime int8 ")
    assert isinstance(second, Table)


def test_rows_of_other_machines_stand_apart() -> None:
    elsewhere = change(FASTER, environment=replace(MACHINE, cpu="Slow Processor 1"))
    assert run.groups([REFERENCE, elsewhere, FASTER]) == ((REFERENCE, FASTER), (elsewhere,))


def test_rows_of_load_shapes_stand_in_no_latency_table() -> None:
    found = section(REFERENCE, change(FASTER, load=LoadResult("closed", (0.1,), (0.1,), 10.0)))
    assert {len(table.rows) for table in found.all_of(Table)} == {1}


def test_only_measured_rows_are_plotted() -> None:
    assert section(*ROWS).all_of(RunPlots) == (RunPlots((REFERENCE, FASTER), (FASTER,)),)


def test_whether_the_machine_was_quiet_is_said_of_all_rows() -> None:
    quiet, unseen = change(FASTER, disturbances=()), change(FASTER, disturbances=None)
    steal, pressure = Reason("time-stolen", "steal"), Reason("system-waited", "pressure")
    first, second = (change(FASTER, disturbances=lines) for lines in ((steal, pressure), (steal,)))

    def said(*rows: Figures) -> tuple[str, str, list[str]]:
        (remark,) = run.quiet(rows)
        return remark.kind, remark.code, [part for part in remark.text.split() if part.isdigit()]

    assert said(quiet, SKIPPED) == ("note", "run-quiet", ["1", "1"])
    assert said(quiet, unseen) == ("note", "run-quiet", ["1", "2", "1", "2"])
    assert said(unseen) == ("note", "run-unwatched", ["1", "1"])
    assert said(quiet, first, second) == ("warning", "run-disturbed", ["2", "3"])
    assert "steal, and more" in next(run.quiet([quiet, first, second])).text
    assert list(run.quiet([SKIPPED])) == list(run.quiet([])) == []
    assert run_document([quiet]).summary == Summary(tuple(run.quiet([quiet])))
