from __future__ import annotations

import dataclasses
import io
from dataclasses import replace

import pytest

from benchmarks import report
from benchmarks.results import Row
from tests.benchmarks.rows import EMPTY, FASTER, ON_A_GPU, REFERENCE, SKIPPED

ROWS = (REFERENCE, FASTER, SKIPPED)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(*rows: Row, complete: bool = True) -> str:
    file = io.StringIO()
    report.print_table(rows, file, complete)
    return file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (0.0004123, "0.412"),
        (0.0034567, "3.46"),
        (0.0123456, "12.3"),
        (0.1234567, "123"),
        (12.34567, "12,346"),
    ],
)
def test_milliseconds(seconds: float | None, text: str) -> None:
    assert report.milliseconds(seconds) == text


def test_a_piped_table_is_plain_and_100_columns_wide_at_most() -> None:
    text = printed(*ROWS)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "resnet20.onnx · resnet20, bundled weights · cpu, 2 threads · fashion-mnist, 10,000 images" in lines
    assert "pytorch fp32 1 2.50 [2.45–2.56] 3.10 2.40 398 1.00" in lines
    assert "onnxruntime int8 1 0.410 [0.405–0.416] 3.10 2.40 398 6.10 [5.95–6.21]" in lines
    assert "pytorch fp32 93.61 [93.1–94.1] 0.00 99.81 100.00" in lines
    assert "onnxruntime int8 93.49 [93.0–94.0] 0.12 [-0.05, 0.29] 99.81 99.99" in lines
    assert "pytorch fp32 1 float32 2.25 31.0 312" in lines
    assert "onnxruntime int8 1 int8 (53 of 54), float32 (1 of 54) 2.25 31.0 312" in lines
    assert "openvino fp32, batch 1: skipped: openvino is not installed" in lines
    assert "runtimes: pytorch 2.13.0 (eager), onnxruntime 1.32.0 (CPUExecutionProvider)" in lines


@pytest.mark.parametrize("columns", ["80", "100"])
def test_a_terminals_table_fits_it(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    file = Terminal()
    report.print_table(ROWS, file)
    assert max(map(len, file.getvalue().splitlines())) <= int(columns)
    assert "0.410" in file.getvalue()


def test_untrained_weights_are_marked_in_every_table() -> None:
    untrained = [replace(row, weights="random", trained=False) for row in ROWS]
    assert "*untrained* random weights" in printed(*untrained)
    assert "*untrained* random weights" in report.markdown(untrained)
    assert "untrained" not in printed(*ROWS)


def test_noise_is_labelled_and_has_no_accuracy_columns() -> None:
    rows = [replace(row, data="noise", top1=None, top5=None, images=64) for row in ROWS]
    for text in (printed(*rows), report.markdown(rows)):
        assert "noise, so no accuracy, 64 images" in text
        assert "top-1 %" not in text
        assert "same %" in text


def test_rows_that_are_not_ok_stand_with_their_reason() -> None:
    broken = replace(EMPTY, status="error", reason="its process was ended by SIGSEGV", runtime="openvino")
    for text in (printed(broken), report.markdown([broken])):
        assert "openvino fp32, batch 1: error: its process was ended by SIGSEGV" in text
        assert "p50" not in text.splitlines()[0]


def test_what_is_said_of_many_rows_of_a_runtime_is_said_once() -> None:
    alike = [replace(SKIPPED, precision=name, batch=batch) for batch in (1, 64) for name in ("fp32", "fp16")]
    other = replace(SKIPPED, precision="bf16", reason="it has no kernel")
    (section,) = report.sections([*alike, other])
    assert section.remarks == (
        "openvino fp32, fp16, batch 1, 64: skipped: openvino is not installed",
        "openvino bf16, batch 1: skipped: it has no kernel",
    )


def test_notes_stand_beneath() -> None:
    assert "onnxruntime int8, batch 1: no test vectors" in printed(replace(FASTER, note="no test vectors"))


def test_an_interrupted_run_says_so() -> None:
    assert "incomplete: the run ended early" in printed(REFERENCE, complete=False)
    assert "incomplete" in printed(complete=False)
    assert "**Incomplete: the run ended early.**" in report.markdown([REFERENCE], complete=False)
    assert "ncomplete" not in printed(REFERENCE) + report.markdown([REFERENCE])


def test_each_subject_has_its_own_section_whatever_files_it_was_measured_from() -> None:
    twin = replace(REFERENCE, artifact="resnet20.pt2", sha256="ef" * 32)
    other = replace(FASTER, artifact="resnet56.onnx", sha256="cd" * 32, variant="resnet56", subject="resnet56.onnx")
    assert [section.title.split(" ")[0] for section in report.sections((twin, *ROWS, other))] == [
        "resnet20.onnx",
        "resnet56.onnx",
    ]


def test_rows_of_older_files_are_told_apart_by_their_artifacts() -> None:
    old = [replace(row, subject=None) for row in (*ROWS, replace(FASTER, artifact="resnet56.onnx", sha256="cd" * 32))]
    assert [section.title.split(" ")[0] for section in report.sections(old)] == ["resnet20.onnx", "resnet56.onnx"]


def test_a_variant_is_named_once() -> None:
    (section,) = report.sections([replace(row, subject="resnet20") for row in ROWS])
    assert section.title.startswith("resnet20, bundled weights · cpu")


def test_a_row_without_answers_stands_in_no_table_of_them() -> None:
    second = replace(FASTER, batch=8, images=None, top1=None, top5=None, agreement=None, drop=None)
    speed, worth, cost = report.sections((*ROWS, second))[0].tables
    assert [len(table.cells) for table in (speed, worth, cost)] == [3, 2, 3]


def test_points_have_a_sign_and_an_interval() -> None:
    assert report.points(None, None) == "–"
    assert report.points(-0.0012, (-0.003, 0.0005)) == "-0.12 [-0.30, 0.05]"


def test_markdown_tables_are_whole_and_foreign_text_cannot_break_them() -> None:
    text = report.markdown([replace(row, runtime="a|b") if row is FASTER else row for row in ROWS])
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {9, 7, 8}
    assert "a\\|b" in text


def test_the_environment_in_one_line() -> None:
    assert report.machine(EMPTY) == (
        "Fast Processor 9 · 2 of 4 processors · avx2 avx512f · 8 GiB · Linux 6.1, CPython 3.11.7 · load 0.50"
    )


def test_the_instruction_sets_that_make_int8_fast_are_told() -> None:
    sets = ("f16c", "fma", "avx2", "avx512f", "avx512_vnni", "amx_int8")
    row = dataclasses.replace(EMPTY, environment=dataclasses.replace(EMPTY.environment, instruction_sets=sets))
    assert "· avx2 avx512f avx512_vnni amx_int8 ·" in report.machine(row)


def test_a_gpus_rows_have_its_own_clock_and_its_state() -> None:
    without = dataclasses.replace(ON_A_GPU, cuda_graphs=False, p50_s=0.0008, energy_per_image_j=None)
    text = printed(dataclasses.replace(REFERENCE, cuda_graphs=True, device="cuda"), ON_A_GPU, without)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "runtime precision batch graphs p50 ms p99 compute device images/s vs pytorch" in lines
    assert "onnxruntime fp16 1 – 0.410 [0.405–0.416] 3.10 2.40 0.321 398 6.10 [5.95–6.21]" in lines
    assert "onnxruntime fp16 1 off 0.800 [0.405–0.416] 3.10 2.40 0.321 398 6.10 [5.95–6.21]" in lines
    assert "onnxruntime fp16 1 – 345→1,755 76→695 power cap, sync boost 1,049 12.30" in lines
    assert "onnxruntime fp16 1 off 345→1,755 76→695 power cap, sync boost 1,049 –" in lines
    assert "device: the same run by the GPU's clock" in text
    assert max(map(len, text.splitlines())) <= report.GPU_WIDTH


def test_a_processors_tables_say_nothing_of_a_gpu() -> None:
    headings = [heading for table in report.sections(ROWS)[0].tables for heading, _ in table.headings]
    assert not {"graphs", "device", "MHz", "GPU MB"} & set(headings)
    assert "graphs" not in printed(*ROWS)


def test_a_gpu_that_is_not_held_back_and_one_that_tells_nothing() -> None:
    assert ON_A_GPU.gpu_after is not None
    state = dataclasses.replace(ON_A_GPU.gpu_after, throttle=(), sm_mhz=None, power_w=None)
    row = dataclasses.replace(ON_A_GPU, gpu_after=state, gpu_before=None, device_peak_bytes=None)
    (section,) = report.sections([row])
    held = dict(zip((heading for heading, _ in section.tables[-1].headings), section.tables[-1].cells[0], strict=True))
    assert held == {
        "runtime": "onnxruntime",
        "precision": "fp16",
        "batch": "1",
        "held by": "nothing",
        "mJ/image": "12.30",
    }


def test_the_gpu_that_was_used_is_named() -> None:
    assert " · NVIDIA H200, driver 580.159.03, CUDA 13.0 · " in report.machine(ON_A_GPU)
    assert "Another GPU" not in report.machine(ON_A_GPU)
    unwatched = dataclasses.replace(ON_A_GPU, gpu_before=None)
    assert "Another GPU, driver 580.159.03, CUDA 13.0 and NVIDIA H200" in report.machine(unwatched)
    blind = dataclasses.replace(unwatched, environment=EMPTY.environment)
    assert " · GPU unknown: no NVML · " in report.machine(blind)


def test_a_row_without_graphs_is_told_apart_in_the_remarks() -> None:
    row = dataclasses.replace(ON_A_GPU, cuda_graphs=False, status="error", reason="it broke")
    assert "onnxruntime fp16, batch 1, no CUDA graphs: error: it broke" in printed(row)
