from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.document.blocks import Table
from exporter.document.terminal import as_text
from exporter.explain.explanation import Errors, Explanation
from exporter.explain.profile_summary import Execution, execution
from exporter.explain.view import Detail, explanation_document, rows, verdict
from exporter.format import percent
from exporter.precision.layer_errors import BlockError, LayerError, StageError
from runtimes import Description
from runtimes.errors import Reason
from runtimes.protocol import Layer
from tests.documents import lines, numbers

ABOUT = Description("onnxruntime", "1.32.0", "cpu", "CPUExecutionProvider", "int8", 2)


def step(name: str, operator: str, precision: str, duration_s: float | None) -> Layer:
    return Layer(name, (name,), operator, precision, operator in ("Conv", "QLinearConv", "Gemm"), duration_s)


STEPS = (
    step("conv1/Conv", "QLinearConv", "int8", 1e-3),
    step("layer1.0.conv1/Conv", "QLinearConv", "int8", 1e-3),
    step("layer1.0/Add", "Add", "float32", 5e-4),
    step("Reorder_1", "Reorder", "float32", 2e-3),
    step("Reorder_2", "Reorder", "float32", 5e-4),
    step("layer1.1.conv1/Conv", "QLinearConv", "int8", 2e-3),
    step("layer1.1.conv2/Conv", "Conv", "float32", 1.2e-2),
    step("layer1.1.conv3/Conv", "QLinearConv", "int8", 1e-3),
    step("fc/Gemm", "Gemm", "int8", 0.0),
)

ERRORS = Errors(
    reference="resnet.onnx",
    images="7 images of fashion-mnist",
    runtime="onnxruntime 1.32.0",
    stages=(
        StageError(
            "layer1",
            0.04,
            0.0601,
            (
                BlockError(
                    "layer1.1",
                    0.05,
                    0.0601,
                    (LayerError("layer1.1.conv2/Conv", 0.05, 0.06), LayerError("layer1.1.relu/Relu", 0.05, 0.0)),
                ),
                BlockError("layer1.0", 0.03, 0.02, (LayerError("layer1.0.conv1/Conv", 0.03, 0.02),)),
            ),
        ),
        StageError(
            "stem", 0.01, 0.000329, (BlockError("stem", 0.01, 0.000329, (LayerError("conv1/Conv", 0.01, 0.0),)),)
        ),
        StageError("head", None, 0.0, (BlockError("head", None, 0.0, (LayerError("fc/Gemm", None, 0.0),)),)),
    ),
    written=0.0731,
    ran=0.0729,
)


def ran(steps: tuple[Layer, ...] = STEPS, precision: str = "int8") -> Execution:
    return execution(steps, precision, ABOUT)


BOTH = Explanation("out/resnet_int8.onnx", "int8", ran(), None, ERRORS, None)
RAN = replace(BOTH, errors=None, no_errors=Reason("already-fp32", "it is fp32"))
WRONG = replace(BOTH, execution=None, no_execution=Reason("layers-hidden", "no kernel"))


def table(explanation: Explanation, detail: Detail = "block") -> Table:
    """The only one."""
    (found,) = (block for block in explanation_document(explanation, detail).blocks if isinstance(block, Table))
    return found


def by_name(explanation: Explanation, detail: Detail = "block") -> dict[str, dict[str, str]]:
    """Each line's cells by their headings, under the name of its stage, block or layer."""
    return {next(iter(line.values())).strip(): line for line in lines(table(explanation, detail))}


def test_the_largest_error_comes_first() -> None:
    assert [row.name for row in rows(BOTH, "stage")] == ["layer1", "stem", "head"]
    assert [row.name for row in rows(BOTH, "block")] == ["layer1", "layer1.1", "layer1.0", "stem", "head"]
    layers = [(row.depth, row.name) for row in rows(BOTH, "layer")]
    assert layers == [
        (0, "layer1"),
        (1, "layer1.1"),
        (2, "conv2/Conv"),
        (2, "relu/Relu"),
        (1, "layer1.0"),
        (2, "conv1/Conv"),
        (0, "stem"),
        (2, "conv1/Conv"),
        (0, "head"),
        (2, "fc/Gemm"),
    ]


def test_where_errors_are_not_known_the_slowest_comes_first() -> None:
    assert [row.name for row in rows(RAN, "block")] == ["layer1", "layer1.1", "layer1.0", "stem", "head"]
    slow = replace(RAN, execution=ran((replace(STEPS[0], duration_s=1.0), *STEPS[1:])))
    assert [row.name for row in rows(slow, "stage")] == ["stem", "layer1", "head"]


def test_a_stage_without_an_error_of_its_own_is_shown() -> None:
    fewer = replace(BOTH, errors=replace(ERRORS, stages=ERRORS.stages[:1]))
    assert [row.name for row in rows(fewer, "stage")] == ["layer1", "stem", "head"]


def test_the_table_is_plain_and_holds_both_halves() -> None:
    found = by_name(BOTH)
    assert list(found["layer1.1"].values())[1:] == [
        *("2 int8, 1 float32", "15.0", "75.0", "5.00", "6.01"),
        "conv2 in float32, 12.0 ms",
    ]
    assert found["layer1.0"]["remarks"].split("; ")[0] == "2 Reorder, 2.50 ms"
    assert [found["head"][name] for name in ("ms", "time %", "error %", "new error %")] == ["0.000", "0.0", "inf", "0"]
    assert table(BOTH).headings == ("block", "executed as", "ms", "time %", "error %", "new error %", "remarks")
    assert [row.state for row in table(BOTH).rows] == ["strong", "", "", "strong", "strong"]


def test_the_plain_text_fits_and_names_artifact_and_library() -> None:
    document = explanation_document(BOTH, "block")
    text = as_text(document)
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    title = text.splitlines()[0].split(" · ")
    assert title == ["resnet_int8.onnx", "int8", "onnxruntime 1.32.0 (CPUExecutionProvider)", "cpu, 2 threads"]
    assert any("resnet.onnx" in words for _, words in document.legend)


def test_a_table_by_stage_has_the_remarks_of_its_blocks() -> None:
    found = by_name(BOTH, "stage")
    remarks = found["layer1"]["remarks"].split("; ")
    assert [one.split(", ")[-1] for one in remarks] == ["12.0 ms", "2.50 ms", "0.500 ms"]
    assert remarks[0].startswith("layer1.1.conv2 ")
    assert "layer1.0" not in found


def test_a_table_by_layer_has_the_errors_of_layers() -> None:
    assert list(by_name(WRONG, "layer")["conv2/Conv"].values())[1:] == ["5.00", "6.00"]


def test_half_an_explanation_has_half_the_columns_and_a_reason() -> None:
    assert "error %" not in table(RAN).headings
    assert verdict(RAN)[1].endswith(f": {RAN.no_errors}")
    assert "time %" not in table(WRONG).headings
    assert verdict(WRONG)[0].endswith(f": {WRONG.no_execution}")
    assert as_text(explanation_document(WRONG, "block")).splitlines()[0] == "resnet_int8.onnx · int8"


def test_a_library_without_times_leaves_them_out() -> None:
    silent = replace(RAN, execution=ran(tuple(replace(layer, duration_s=None) for layer in STEPS)))
    line = by_name(silent)["layer1.1"]
    assert (line["ms"], line["time %"], numbers(line["remarks"])) == ("–", "", [])
    assert numbers(verdict(silent)[0]) == ["5", "6", "1"]


def test_the_verdict_names_precisions_and_the_worst_block() -> None:
    first, second = verdict(BOTH)
    assert numbers(first) == ["5", "6", "1", "85", "12"]
    assert first.index("int8") < first.index("float32")
    assert numbers(second) == ["6.01", "7.31", "7.29"]
    assert ("layer1.1: " in second, "conv2" in second) == (True, True)
    assert numbers(verdict(replace(BOTH, errors=replace(ERRORS, ran=None)))[1]) == ["6.01", "7.31"]


def test_the_verdict_on_what_runs_wider_as_a_whole() -> None:
    wide = tuple(replace(layer, precision="float32") for layer in STEPS)
    narrow = verdict(replace(RAN, execution=ran(wide, "fp16"), precision="fp16"))[0]
    same = verdict(replace(RAN, execution=ran(wide, "fp32"), precision="fp32"))[0]
    assert numbers(narrow)[0] == numbers(same)[0] == "6"
    assert ("none as fp16" in narrow, "none" in same) == (True, False)
    assert numbers(verdict(replace(RAN, execution=ran((STEPS[2],))))[0]) == []


@pytest.mark.parametrize(
    ("error", "text"),
    [(None, "inf"), (0.0, "0"), (1e-6, "<0.001"), (0.000329, "0.0329"), (0.0601, "6.01"), (0.5, "50.0"), (2.0, "200")],
)
def test_errors_are_told_in_per_cent(error: float | None, text: str) -> None:
    assert percent(error) == text
