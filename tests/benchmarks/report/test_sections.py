from __future__ import annotations

import dataclasses
import io
from dataclasses import replace

import pytest

from benchmarks.accuracy.flips import Flips
from benchmarks.records.load import LoadResult
from benchmarks.records.result import Row
from benchmarks.records.roof import Roof
from benchmarks.report import sections, terminal
from tests.benchmarks.rows import EMPTY, FASTER, ON_A_GPU, REFERENCE, SKIPPED

ROWS = (REFERENCE, FASTER, SKIPPED)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(*rows: Row, complete: bool = True) -> str:
    file = io.StringIO()
    terminal.print_table(rows, file, complete)
    return file.getvalue()


def test_a_piped_table_is_plain_and_100_columns_wide_at_most() -> None:
    text = printed(*ROWS)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "resnet20.onnx · resnet20, bundled weights · cpu, 2 threads · fashion-mnist, 10,000 images" in lines
    assert "pytorch fp32 1 2.50 [2.45–2.56] 3.10 398 1.00 –" in lines
    assert "quiet: 2 of 2 rows" in lines
    assert "onnxruntime int8 1 0.410 [0.405–0.416] 0.520 2,430 6.10 [5.95–6.21] faster" in lines
    assert "onnxruntime int8 1 0.440 0.390" in lines
    assert "pytorch fp32 93.61 [93.1–94.1] 0.00 99.81 100.00 1,480" in lines
    assert "onnxruntime int8 93.49 [93.0–94.0] 0.12 [-0.05, 0.29] 99.81 99.99 5,210" in lines
    assert "pytorch fp32 1 float32 2.25 31.0 312" in lines
    assert "onnxruntime int8 1 int8 (53 of 54), float32 (1 of 54) 0.21 4.00 187" in lines
    assert "openvino fp32, batch 1: skipped: openvino is not installed" in lines
    assert "runtimes: pytorch 2.13.0 (eager), onnxruntime 1.32.0 (CPUExecutionProvider)" in lines


@pytest.mark.parametrize("columns", ["80", "100"])
def test_a_terminals_table_fits_it(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    file = Terminal()
    terminal.print_table(ROWS, file)
    assert max(map(len, file.getvalue().splitlines())) <= int(columns)
    assert "0.410" in file.getvalue()


def test_untrained_weights_are_marked_in_every_table() -> None:
    untrained = [replace(row, weights="random", trained=False) for row in ROWS]
    assert "*untrained* random weights" in printed(*untrained)
    assert "untrained" not in printed(*ROWS)


def test_noise_is_labelled_and_has_no_accuracy_columns() -> None:
    rows = [replace(row, data="noise", top1=None, top5=None, images=64) for row in ROWS]
    text = printed(*rows)
    assert "noise, so no accuracy, 64 images" in text
    assert "top-1 %" not in text
    assert "same %" in text


def test_rows_that_are_not_ok_stand_with_their_reason() -> None:
    broken = replace(EMPTY, status="error", reason="its process was ended by SIGSEGV", runtime="openvino")
    text = printed(broken)
    assert "openvino fp32, batch 1: error: its process was ended by SIGSEGV" in text
    assert "p50" not in text.splitlines()[0]


def test_what_is_said_of_many_rows_of_a_runtime_is_said_once() -> None:
    alike = [replace(SKIPPED, precision=name, batch=batch) for batch in (1, 64) for name in ("fp32", "fp16")]
    other = replace(SKIPPED, precision="bf16", reason="it has no kernel")
    (section,) = sections.sections([*alike, other])
    assert section.remarks == (
        "openvino fp32, fp16, batch 1, 64: skipped: openvino is not installed",
        "openvino bf16, batch 1: skipped: it has no kernel",
    )


def test_notes_stand_beneath() -> None:
    assert "onnxruntime int8, batch 1: no test vectors" in printed(replace(FASTER, note="no test vectors"))


def test_an_interrupted_run_says_so() -> None:
    assert "incomplete: the run ended early" in printed(REFERENCE, complete=False)
    assert "incomplete" in printed(complete=False)
    assert "ncomplete" not in printed(REFERENCE)


def test_each_subject_has_its_own_section_whatever_files_it_was_measured_from() -> None:
    twin = replace(REFERENCE, artifact="resnet20.pt2", sha256="ef" * 32)
    other = replace(FASTER, artifact="resnet56.onnx", sha256="cd" * 32, variant="resnet56", subject="resnet56.onnx")
    assert [section.title.split(" ")[0] for section in sections.sections((twin, *ROWS, other))] == [
        "resnet20.onnx",
        "resnet56.onnx",
    ]


def test_rows_of_older_files_are_told_apart_by_their_artifacts() -> None:
    old = [replace(row, subject=None) for row in (*ROWS, replace(FASTER, artifact="resnet56.onnx", sha256="cd" * 32))]
    assert [section.title.split(" ")[0] for section in sections.sections(old)] == ["resnet20.onnx", "resnet56.onnx"]


def test_a_variant_is_named_once() -> None:
    (section,) = sections.sections([replace(row, subject="resnet20") for row in ROWS])
    assert section.title.startswith("resnet20, bundled weights · cpu")


def test_a_row_without_answers_stands_in_no_table_of_them() -> None:
    nothing = dict.fromkeys(("images", "top1", "top5", "agreement", "drop", "evaluated_per_s"))
    second = replace(FASTER, batch=8, **nothing)  # type: ignore[arg-type]
    speed, spans, worth, cost = sections.sections((*ROWS, second))[0].tables
    assert [len(table.cells) for table in (speed, spans, worth, cost)] == [3, 3, 2, 3]


def test_the_environment_in_one_line() -> None:
    assert sections.machine(EMPTY) == (
        "Fast Processor 9 · 2 of 4 processors · avx2 avx512f · 8 GiB · Linux 6.1, CPython 3.11.7 · load 0.50"
    )


def test_the_instruction_sets_that_make_int8_fast_are_told() -> None:
    sets = ("f16c", "fma", "avx2", "avx512f", "avx512_vnni", "amx_int8")
    row = dataclasses.replace(EMPTY, environment=dataclasses.replace(EMPTY.environment, instruction_sets=sets))
    assert "· avx2 avx512f avx512_vnni amx_int8 ·" in sections.machine(row)


def test_a_gpus_rows_have_its_own_clock_and_its_state() -> None:
    without = dataclasses.replace(ON_A_GPU, cuda_graphs=False, p50_s=0.0008, energy_per_image_j=None)
    text = printed(dataclasses.replace(REFERENCE, cuda_graphs=True, device="cuda"), ON_A_GPU, without)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "runtime precision batch graphs p50 ms p99 images/s vs pytorch verdict" in lines
    assert "onnxruntime fp16 1 – 0.410 [0.405–0.416] 0.520 2,430 6.10 [5.95–6.21] faster" in lines
    assert "onnxruntime fp16 1 off 0.800 [0.405–0.416] 0.520 2,430 6.10 [5.95–6.21] faster" in lines
    assert "onnxruntime fp16 1 – 0.440 0.390 0.321" in lines
    assert "onnxruntime fp16 1 – 345→1,755 76→695 power cap, sync boost 1,049 12.30" in lines
    assert "onnxruntime fp16 1 off 345→1,755 76→695 power cap, sync boost 1,049 –" in lines
    assert "device: the same run by the GPU's clock" in text
    assert max(map(len, text.splitlines())) <= terminal.GPU_WIDTH


def test_a_processors_tables_say_nothing_of_a_gpu() -> None:
    headings = [heading for table in sections.sections(ROWS)[0].tables for heading, _ in table.headings]
    assert not {"graphs", "device", "MHz", "GPU MB"} & set(headings)
    assert "graphs" not in printed(*ROWS)


def test_a_gpu_that_is_not_held_back_and_one_that_tells_nothing() -> None:
    assert ON_A_GPU.gpu_after is not None
    state = dataclasses.replace(ON_A_GPU.gpu_after, throttle=(), sm_mhz=None, power_w=None)
    row = dataclasses.replace(ON_A_GPU, gpu_after=state, gpu_before=None, device_peak_bytes=None)
    (section,) = sections.sections([row])
    held = dict(zip((heading for heading, _ in section.tables[-1].headings), section.tables[-1].cells[0], strict=True))
    assert held == {
        "runtime": "onnxruntime",
        "precision": "fp16",
        "batch": "1",
        "held by": "nothing",
        "mJ/image": "12.30",
    }


def test_the_gpu_that_was_used_is_named() -> None:
    assert " · NVIDIA H200, driver 580.159.03, CUDA 13.0 · " in sections.machine(ON_A_GPU)
    assert "Another GPU" not in sections.machine(ON_A_GPU)
    unwatched = dataclasses.replace(ON_A_GPU, gpu_before=None)
    assert "Another GPU, driver 580.159.03, CUDA 13.0 and NVIDIA H200" in sections.machine(unwatched)
    blind = dataclasses.replace(unwatched, environment=EMPTY.environment)
    assert " · GPU unknown: no NVML · " in sections.machine(blind)


def test_a_row_without_graphs_is_told_apart_in_the_remarks() -> None:
    row = dataclasses.replace(ON_A_GPU, cuda_graphs=False, status="error", reason="it broke")
    assert "onnxruntime fp16, batch 1, no CUDA graphs: error: it broke" in printed(row)


FULL = replace(
    FASTER,
    p50_s=0.0123,
    p50_interval_s=(0.01221, 0.01246),
    p99_s=0.123,
    p999_s=0.456,
    compute_p50_interval_s=(0.000385, 0.000395),
    image_p50_s=0.0021,
    ratio=12.34,
    ratio_interval=(12.01, 12.67),
    roof=Roof(41_000_000, 300_000, 4e11, 2e10, 0.0001025, 0.263, "compute"),
    flips=Flips(4, 6, 0.75, 9, 1, (0.00002, 0.0006)),
    disturbances=("others used 0.93 of 2 processors while it was timed; up to 0.10 is quiet",),
    warnings=("the latency rose by 6 % from the first third to the last",),
)
"""Something in every column."""


def test_every_column_of_a_processors_tables_fits_100_columns() -> None:
    text = printed(REFERENCE, FULL, SKIPPED)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert max(map(len, text.splitlines())) <= 100
    assert "runtime precision batch p50 ms p99 images/s vs pytorch verdict !" in lines
    assert "onnxruntime int8 1 12.3 [12.2–12.5] 123 2,430 12.34 [12.01–12.67] faster !" in lines
    assert "runtime precision batch p90 ms p99.9 compute roof % image-to-label" in lines
    assert "onnxruntime int8 1 0.440 456 0.390 [0.385–0.395] 26 2.10" in lines
    assert "onnxruntime int8 93.49 [93.0–94.0] 0.12 [-0.05, 0.29] 99.81 99.99 1+9 5,210" in lines


def test_what_is_doubtful_is_said_beneath() -> None:
    assert FULL.disturbances
    (section,) = sections.sections([REFERENCE, FULL])
    assert section.remarks[:2] == (
        f"onnxruntime int8, batch 1: disturbed: {FULL.disturbances[0]}",
        "onnxruntime int8, batch 1: warning: the latency rose by 6 % from the first third to the last",
    )
    assert "!" not in [heading for heading, _ in sections.sections([REFERENCE, FASTER])[0].tables[0].headings]


def test_the_headline_stands_over_the_table() -> None:
    lines = printed(*ROWS).splitlines()
    assert lines[1].startswith("Batch 1: onnxruntime int8 is the fastest, at 0.410 [0.405–0.416] ms: ")


def test_rows_of_other_machines_stand_apart_though_they_come_mixed() -> None:
    elsewhere = replace(FASTER, environment=replace(FASTER.environment, cpu="Slow Processor 1"))
    found = sections.groups([REFERENCE, elsewhere, FASTER])
    assert found == ((REFERENCE, FASTER), (elsewhere,))


def test_rows_of_load_shapes_stand_in_no_table_of_latencies() -> None:
    (section,) = sections.sections([REFERENCE, replace(FASTER, load=LoadResult("closed", (0.1,), (0.1,), 10.0))])
    assert {len(table.cells) for table in section.tables} == {1}


def test_whether_the_machine_was_quiet_is_said_of_all_rows() -> None:
    quiet, unseen = replace(FASTER, disturbances=()), replace(FASTER, disturbances=None)
    first, second = (replace(FASTER, disturbances=lines) for lines in (("steal", "pressure"), ("steal",)))
    assert sections.quiet([quiet, SKIPPED]) == "quiet: 1 of 1 row"
    assert sections.quiet([quiet, unseen]) == "quiet: 1 of 2 rows; not known whether the machine was quiet: 1 of 2 rows"
    assert sections.quiet([unseen]) == "not known whether the machine was quiet: 1 of 1 row"
    assert sections.quiet([quiet, first, second]) == "disturbed: 2 of 3 rows: steal, and more"
    assert sections.quiet([SKIPPED]) is sections.quiet([]) is None
