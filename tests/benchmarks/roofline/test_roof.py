from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import runtimes
from benchmarks.records.result import RoofInputs
from benchmarks.roofline import ceilings, matmul
from benchmarks.roofline.ceilings import (
    Ceilings,
    CeilingsRequest,
    Rate,
    bandwidth,
    find_best_rate,
    measure,
    measure_ceilings,
    shortest_s,
    without_emulation,
)
from benchmarks.roofline.graph_cost import Cost
from benchmarks.roofline.matmul import Call, Product, graph
from benchmarks.roofline.roof import PLAUSIBLE, count_layers, implausible, narrower, peak, roof_inputs, wider
from runtimes.errors import CompatibilityError
from runtimes.protocol import Layer
from tests.refusals import refuses

MACHINE = Ceilings(
    device="cpu",
    threads=2,
    multiply_adds_per_s={"float32": 1e11, "bfloat16": 2e11, "int8": 4e11},
    bandwidth_bytes_per_s=2e10,
)

RESNET50 = Cost(multiply_adds=4_000_000_000, weights_bytes=100_000_000, traffic_bytes=100_604_112)


def test_a_call_cannot_end_before_its_multiply_adds() -> None:
    found = roof_inputs(RESNET50, MACHINE, "float32")
    assert found == RoofInputs(4_000_000_000, 100_604_112, 1e11, 2e10)
    assert (found.least_s, found.bound) == (0.04, "compute")


def test_a_call_cannot_end_before_its_bytes() -> None:
    found = roof_inputs(replace(RESNET50, traffic_bytes=400_000_000), MACHINE, "int8")
    assert found == RoofInputs(4_000_000_000, 400_000_000, 4e11, 2e10)
    assert (found.least_s, found.bound) == (0.02, "bandwidth")


@pytest.mark.parametrize("arithmetic", [None, "", "nothing weighted", "as in the graph", "float16", "float32 float16"])
def test_an_arithmetic_without_a_ceiling_has_no_roof(arithmetic: str | None) -> None:
    assert roof_inputs(RESNET50, MACHINE, arithmetic) is None


def test_without_work_or_ceilings_there_is_no_roof() -> None:
    assert roof_inputs(None, MACHINE, "float32") is None
    assert roof_inputs(RESNET50, None, "float32") is None
    assert roof_inputs(replace(RESNET50, multiply_adds=0), MACHINE, "float32") is None
    assert roof_inputs(RESNET50, replace(MACHINE, bandwidth_bytes_per_s=None), "float32") is None


@pytest.mark.parametrize(
    ("arithmetic", "expected"),
    [
        ("int8", 4e11),
        ("float32 int8", 4e11),
        ("int8 (3 of 4), float32 (1 of 4)", 4 / (3 / 4e11 + 1 / 1e11)),
        ("int8 (3 of 4), float16 (1 of 4)", None),
    ],
)
def test_counted_layers_add_up_and_else_the_fastest_counts(arithmetic: str, expected: float | None) -> None:
    assert peak(MACHINE, arithmetic) == (None if expected is None else pytest.approx(expected, rel=1e-15))


def test_a_time_below_the_roof_is_doubted() -> None:
    compute = roof_inputs(RESNET50, MACHINE, "float32")
    assert compute is not None
    assert implausible(compute, 1.001 * 0.04 / PLAUSIBLE) is None
    reason = implausible(compute, 0.032)
    assert reason is not None
    assert reason.code == "faster-than-peak"
    assert all(figure in reason.sentence for figure in ("32 ms", "40 ms", "4 G multiply-adds", "100 G/s"))
    moving = roof_inputs(replace(RESNET50, traffic_bytes=400_000_000), MACHINE, "int8")
    assert moving is not None
    reason = implausible(moving, 0.01)
    assert reason is not None
    assert reason.code == "faster-than-bandwidth"
    assert all(figure in reason.sentence for figure in ("10 ms", "20 ms", "400 MB", "20 GB/s"))


@dataclass
class Bench:
    """A virtual clock, and a library on it: ``per_s`` multiply-adds a second by size; a size it does not have fails."""

    per_s: Mapping[int, float]
    now: float = 0.0
    ready_s: float = 0.0

    def clock(self) -> float:
        return self.now

    def product(self, check: Call = lambda: None) -> Product:
        return Product("lib", "float32", check, self.make)

    @contextlib.contextmanager
    def make(self, size: int) -> Iterator[Call]:
        self.now += self.ready_s
        rate = self.per_s[size]

        def call() -> None:
            self.now += size**3 / rate

        yield call


def test_the_best_size_counts_to_the_digit() -> None:
    bench = Bench({256: 2.0**24, 512: 2.0**27, 1024: 2.0**26, 2048: 2.0**25, 4096: 2.0**25, 8192: 2.0**25})
    assert find_best_rate(bench.product(), 1e9, bench.clock) == Rate(2.0**27, "lib, 512 x 512")


def test_a_size_that_would_not_end_in_time_is_not_begun() -> None:
    bench = Bench(dict.fromkeys((256, 512, 1024), 2.0**27))  # of 256 a run takes 1/8 s, of 512 1 s, of 1024 8 s
    assert find_best_rate(bench.product(), 5.0, bench.clock) == Rate(2.0**27, "lib, 256 x 256")
    assert bench.now == 4 / 8 + 4 * 1
    late = Bench(dict.fromkeys((256, 512), 2.0**27))
    assert find_best_rate(late.product(), -1.0, late.clock) is not None
    assert late.now == 4 / 8


def test_what_a_library_cannot_do_is_left_out() -> None:
    def refuse() -> None:
        raise CompatibilityError("no")

    assert find_best_rate(Bench({}).product(), 10.0) is None
    assert find_best_rate(Bench({256: 1e9}).product(refuse), 10.0) is None
    bench = Bench({256: 2.0**24})
    assert find_best_rate(bench.product(), 1e9, bench.clock) == Rate(2.0**24, "lib, 256 x 256")  # the larger one failed


def test_the_first_run_does_not_count() -> None:
    durations = iter([9.0, 3.0, 1.0, 2.0])
    now = [0.0]

    def call() -> None:
        now[0] += next(durations)

    assert shortest_s(call, lambda: now[0]) == 1.0


def test_narrow_floats_slower_than_float32_are_no_ceilings() -> None:
    rates = {"float32": Rate(10.0, "a"), "float16": Rate(1.0, "b"), "bfloat16": Rate(20.0, "c"), "int8": Rate(5.0, "d")}
    assert list(without_emulation(rates)) == ["float32", "bfloat16", "int8"]
    assert list(without_emulation({"float16": Rate(1.0, "b")})) == ["float16"]


def test_a_copy_counts_what_is_read_and_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ceilings.STREAM_BYTES, "cpu", 1 << 20)
    ticks = iter(range(1000))
    assert bandwidth(3, "cpu", lambda: float(next(ticks))) == Rate(2.0 * (1 << 20), "copying 1 MiB")


def test_a_device_that_is_not_there_has_no_bandwidth() -> None:
    assert bandwidth(1, "nowhere") is None


def test_a_call_on_a_device_ends_with_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    heard: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", heard.append)
    matmul.finishing(lambda: heard.append("call"), "cuda")()
    assert heard == ["call", "cuda"]
    ticks = iter(range(1000))
    found = bandwidth(1, "meta", lambda: float(next(ticks)))  # PyTorch's device without memory: nothing is moved
    assert found == Rate(2.0 * (1 << 30), "copying 1024 MiB")
    assert heard.count("meta") == 8


ABLE = [row.name for row in runtimes.available_backends() if matmul.FORMAT in row.formats and not row.missing()]


@pytest.mark.parametrize("arithmetic", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("name", [name for name in ABLE if name in ("onnxruntime", "openvino")])
def test_the_graphs_multiply(name: str, arithmetic: str, tmp_path: Path) -> None:
    path = tmp_path / "product.onnx"
    path.write_bytes(graph(arithmetic, 64))
    x = matmul._numbers("uint8" if arithmetic == "int8" else "float32", 64)
    try:
        with runtimes.open(path, name, "cpu", 1) as runtime:
            (y,) = runtime.infer({"x": x}).values()
    except CompatibilityError as error:
        pytest.skip(f"{name} has no {arithmetic} here: {error}")
    if arithmetic == "int8":
        w = matmul._numbers("int8", 64)
        expected = (x.astype(int) - 128) @ w.astype(int) * 2.0**-14 / (64**0.5 / 64) + 128
        np.testing.assert_allclose(y, np.clip(expected, 0, 255), atol=2)
        assert y.std() > 10  # the scale leaves something of the values
    else:
        np.testing.assert_allclose(y, x @ matmul._numbers("float32", 64), atol=0.05)


def test_a_product_in_another_arithmetic_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [row for row in matmul.products(1, "cpu", ("int8",), tmp_path) if row.library in ABLE]
    if not found:
        pytest.skip("no runtime here opens ONNX files")
    found[0].check()
    layer = Layer("MatMul", (), "MatMul", "float32", True, None)
    monkeypatch.setattr(runtimes, "profile", lambda *_: (layer,))
    with refuses(CompatibilityError, "arithmetic-differs", found[0].library, "int8", "float32"):
        found[0].check()


def test_tensorfloat32_is_of_gpus_alone(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (found,) = matmul.products(1, "cpu", ("tfloat32",), tmp_path)
    with pytest.raises(CompatibilityError, match="only NVIDIA GPUs"):
        found.check()
    assert measure(CeilingsRequest(1, "cpu", ("tfloat32",), 0.0)).multiply_adds_per_s == {}


def test_this_machines_ceilings() -> None:
    found = measure_ceilings(1, arithmetics=("float32",), limit_s=0.0)
    assert found.missing is None
    assert list(found.multiply_adds_per_s) == ["float32"]
    assert list(found.method) == ["float32", "bandwidth"]
    assert (found.threads, found.device) == (1, "cpu")
    assert found.bandwidth_bytes_per_s is not None
    assert found.bandwidth_bytes_per_s > 0


FAILS = "raise SystemExit('no memory')"


@pytest.mark.parametrize(("code", "value"), [(FAILS, "no memory"), ("import os; os._exit(7)", " 7")])
def test_a_process_that_fails_leaves_every_ceiling_out(code: str, value: str) -> None:
    found = measure_ceilings(2, program=(sys.executable, "-c", code))
    assert found == Ceilings("cpu", 2, missing=found.missing)
    assert value in (found.missing or "")
    assert roof_inputs(RESNET50, found, "float32") is None


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "HUNG_S", 0.2)
    found = measure_ceilings(1, limit_s=0.0, program=(sys.executable, "-c", "import time; time.sleep(60)"))
    assert "0.2 s" in (found.missing or "")


def test_what_libraries_print_is_not_in_the_way() -> None:
    code = (
        "import sys; from benchmarks.roofline import ceilings; ceilings.products = lambda *_: print('hello') or ();"
        "ceilings.STREAM_BYTES['cpu'] = 4096; sys.exit(ceilings.main(sys.argv[1:]))"
    )
    found = measure_ceilings(1, program=(sys.executable, "-c", code))
    assert found.missing is None
    assert found.bandwidth_bytes_per_s is not None


@pytest.mark.parametrize(
    ("precision", "arithmetic", "less", "more"),
    [
        ("fp32", "float32", False, False),
        ("fp32", "bfloat16", True, False),
        ("fp32", "bfloat16 (53 of 54), float32 (1 of 54)", True, False),
        ("fp32", "tfloat32", True, False),
        ("tf32", "tfloat32", False, False),
        ("tf32", "float32", False, True),
        ("fp16", "float16", False, False),
        ("fp16", "bfloat16", False, False),
        ("fp16", "float32", False, True),
        ("int8", "int8", False, False),
        ("int8", "int8 (53 of 54), float32 (1 of 54)", False, False),
        ("int8", "float32 (30 of 54), uint8 (24 of 54)", False, True),
        ("int8", "float32 int8", False, False),  # how much of either is not known
        ("fp16", "nothing weighted", False, False),
        ("fp16", None, False, False),
        (None, "float32", False, False),
    ],
)
def test_what_ran_against_what_was_typed(precision: str | None, arithmetic: str | None, less: bool, more: bool) -> None:
    below, above = narrower(precision, arithmetic), wider(precision, arithmetic)
    assert (below and below.code, above and above.code) == (
        "ran-narrower" if less else None,
        "ran-wider" if more else None,
    )
    for reason in filter(None, (below, above)):
        assert f"{precision}" in reason.sentence
        assert reason.sentence.endswith(f"{arithmetic}")


def test_layers_are_counted_where_the_words_count_them() -> None:
    assert count_layers("int8 (53 of 54), float32 (1 of 54)") == {"int8": 53, "float32": 1}
    assert count_layers("float32") == count_layers(None) == {}
