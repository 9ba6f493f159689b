from __future__ import annotations

import io
from dataclasses import replace

import pytest

from exporter.explain.explanation import Errors, Explanation
from exporter.explain.layer_errors import BlockError, LayerError, StageError
from exporter.explain.profile_summary import Execution, execution
from exporter.explain.view import percent, print_explanation, rows, verdict
from runtimes import Description
from runtimes.errors import Reason
from runtimes.protocol import Layer

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
RAN = replace(BOTH, errors=None, no_errors=Reason("already-fp32", "it is fp32 itself"))
WRONG = replace(BOTH, execution=None, no_execution=Reason("kernel-missing", "no kernel for Conv in bfloat16"))


def printed(explanation: Explanation, detail: str = "block") -> str:
    stream = io.StringIO()
    print_explanation(explanation, detail, stream)  # type: ignore[arg-type]
    return stream.getvalue()


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
    text = printed(BOTH)
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in text
    assert lines[0] == "resnet_int8.onnx · int8 · onnxruntime 1.32.0 (CPUExecutionProvider) · cpu, 2 threads"
    assert " block       ran in                ms  time %  error %   new %  remarks" in lines
    assert "   layer1.1  2 int8, 1 float32   15.0    75.0     5.00    6.01  conv2 in float32, 12.0 ms" in lines
    assert "2 Reorder, 2.50 ms; Add in float32, 0.500 ms" in " ".join(text.split())
    assert " head        int8               0.000     0.0      inf       0" in lines
    assert "error: rms of the differences from resnet.onnx over its own rms, on 7 images of fashion-mnist;" in lines


def test_a_table_by_stage_has_the_remarks_of_its_blocks() -> None:
    text = " ".join(printed(BOTH, "stage").split())
    assert "layer1.1.conv2 in float32, 12.0 ms" in text
    assert "2 Reorder, 2.50 ms" in text
    assert "layer1.0" not in text


def test_a_table_by_layer_has_the_errors_of_layers() -> None:
    lines = [line.rstrip() for line in printed(WRONG, "layer").splitlines()]
    assert "     conv2/Conv     5.00    6.00" in lines


def test_half_an_explanation_has_half_the_columns_and_a_reason() -> None:
    assert "error %" not in printed(RAN)
    assert printed(RAN).endswith("errors are not known: it is fp32 itself\n")
    assert "time %" not in printed(WRONG)
    assert "what ran is not known: no kernel for Conv in bfloat16\n" in printed(WRONG)
    assert printed(WRONG).startswith("resnet_int8.onnx · int8\n")


def test_a_library_without_times_leaves_them_out() -> None:
    silent = replace(RAN, execution=ran(tuple(replace(layer, duration_s=None) for layer in STEPS)))
    assert "conv2 in float32 " in printed(silent)
    assert verdict(silent)[0] == "runs int8 in 5 of 6 weighted layers, float32 in 1"


def test_the_verdict() -> None:
    assert verdict(BOTH) == (
        "runs int8 in 5 of 6 weighted layers, float32 in 1; 85 % of the time in them, 12 % in conversions",
        "most error enters at layer1.1: 6.01 %, at conv2; answers 7.31 % off as written, 7.29 % as it ran",
    )
    assert verdict(replace(BOTH, errors=replace(ERRORS, ran=None)))[1].endswith("7.31 % off as written")


def test_the_verdict_on_what_runs_wider_as_a_whole() -> None:
    wide = tuple(replace(layer, precision="float32") for layer in STEPS)
    assert verdict(replace(RAN, execution=ran(wide, "fp16"), precision="fp16"))[0].startswith(
        "runs float32 in all 6 weighted layers, and not fp16; "
    )
    assert verdict(replace(RAN, execution=ran(wide, "fp32"), precision="fp32"))[0].startswith(
        "runs float32 in all 6 weighted layers; "
    )
    assert verdict(replace(RAN, execution=ran((STEPS[2],))))[0] == "no layer with weights ran"


@pytest.mark.parametrize(
    ("error", "text"),
    [(None, "inf"), (0.0, "0"), (1e-6, "<0.001"), (0.000329, "0.0329"), (0.0601, "6.01"), (0.5, "50.0"), (2.0, "200")],
)
def test_errors_are_told_in_per_cent(error: float | None, text: str) -> None:
    assert percent(error) == text
