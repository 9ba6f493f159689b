"""Square matrix products in each library that is here, to find how many multiply-adds a second a machine can do.

The runtimes get a graph with one product in it, opened with the same settings as a network; PyTorch is asked directly.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

import runtimes
from runtimes.errors import CompatibilityError
from runtimes.protocol import Array, Backend, summarise_precisions

Call: TypeAlias = Callable[[], object]


@dataclass(frozen=True)
class Product:
    """A product in one library.

    Attributes:
        library: its name.
        arithmetic: by the names of ``Row.arithmetic``.
        check: raises where the library cannot do it, or does it in another arithmetic.
        make: for a size n, a call that multiplies two n x n matrices and returns when it is done.
    """

    library: str
    arithmetic: str
    check: Call
    make: Callable[[int], AbstractContextManager[Call]]


def products(threads: int, device: str, arithmetics: Sequence[str], folder: Path) -> tuple[Product, ...]:
    """All that there are here. Graphs are written into ``folder``, with onnx. Imports PyTorch where it is installed."""
    opened = [
        _open_product(backend, arithmetic, threads, device, folder)
        for backend in (runtimes.available_backends() if importlib.util.find_spec("onnx") else ())
        if FORMAT in backend.formats and device in backend.devices and not backend.missing()
        for arithmetic in arithmetics
        if arithmetic in _ONNX_TYPES
    ]
    return (*opened, *_eager(threads, device, arithmetics))


FORMAT = "onnx"
"""Of the graphs."""

_ONNX_TYPES = {"float32": "FLOAT", "bfloat16": "BFLOAT16", "float16": "FLOAT16", "int8": "INT8"}
"""Of the weights, by arithmetic. TensorFloat-32 is no type."""

_OPSET, _IR_VERSION = 22, 10
"""Of the graphs: the least that has bfloat16, and its IR version."""

_CHECKED = 64
"""The size that a runtime's profiler is asked about."""


def _open_product(backend: Backend, arithmetic: str, threads: int, device: str, folder: Path) -> Product:
    @contextlib.contextmanager
    def open_graph(size: int) -> Iterator[tuple[Path, runtimes.Runtime, dict[str, Array]]]:
        path = folder / f"{arithmetic}-{size}.onnx"
        if not path.exists():
            path.write_bytes(graph(arithmetic, size))
        with runtimes.open(path, backend.name, device, threads) as runtime:
            yield path, runtime, {spec.name: _numbers(spec.dtype, size) for spec in runtime.inputs}

    def check() -> None:
        with open_graph(_CHECKED) as (path, runtime, feeds):
            ran = runtime.description.precision
        if ran == arithmetic and backend.profile is not None:
            ran = summarise_precisions(runtimes.profile(path, feeds, backend.name, device, threads))
        if ran != arithmetic:
            raise CompatibilityError(f"{backend.name} multiplies {arithmetic} in {ran} here", code="arithmetic-differs")

    @contextlib.contextmanager
    def make(size: int) -> Iterator[Call]:
        with open_graph(size) as (_, runtime, feeds):
            yield runtime.bind(feeds)

    return Product(backend.name, arithmetic, check, make)


def _numbers(dtype: str, size: int) -> Array:
    """A matrix (size, size) of seeded noise: in -0.5..0.5, or of all the integers that the type has."""
    random, kind = np.random.default_rng(0), np.dtype(dtype)
    if kind.kind == "f":
        return (random.random((size, size), np.float32) - np.float32(0.5)).astype(kind)
    return random.integers(np.iinfo(kind).min, np.iinfo(kind).max, (size, size), kind, endpoint=True)


def graph(arithmetic: str, size: int) -> bytes:
    """An ONNX file with the product of its input (size, size) and weights of the same shape.

    It is typed as ``rexport onnx`` types a network: a narrow float is cast to at the input and from at the output, and
    int8 is told by Q/DQ nodes, the activations unsigned.
    """
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.DataType.Value(_ONNX_TYPES[arithmetic])
    end = TensorProto.UINT8 if arithmetic == "int8" else TensorProto.FLOAT
    weights = _numbers("int8" if arithmetic == "int8" else "float32", size)
    held = {"w": weights.astype(helper.tensor_dtype_to_np_dtype(kind))}
    if arithmetic == "int8":
        held |= {"step": np.array(2**-7, np.float32), "zero": np.array(0, np.int8)}
        held |= {"wide": np.array(size**0.5 / 64, np.float32), "middle": np.array(128, np.uint8)}
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "step", "middle"], ["xn"]),
            helper.make_node("DequantizeLinear", ["w", "step", "zero"], ["wn"]),
            helper.make_node("MatMul", ["xn", "wn"], ["z"]),
            helper.make_node("QuantizeLinear", ["z", "wide", "middle"], ["y"]),
        ]
    elif kind == TensorProto.FLOAT:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    else:
        nodes = [
            helper.make_node("Cast", ["x"], ["xn"], to=kind),
            helper.make_node("MatMul", ["xn", "w"], ["z"]),
            helper.make_node("Cast", ["z"], ["y"], to=end),
        ]
    ends = [helper.make_tensor_value_info(name, end, [size, size]) for name in "xy"]
    numbers = [numpy_helper.from_array(array, name) for name, array in held.items()]
    made = helper.make_graph(nodes, "product", ends[:1], ends[1:], numbers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())


def _eager(threads: int, device: str, arithmetics: Sequence[str]) -> Iterator[Product]:
    """PyTorch's own operators."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)

    def check(arithmetic: str) -> None:
        if device != "cpu" and not torch.cuda.is_available():
            raise CompatibilityError("PyTorch sees no GPU", code="product-needs-gpu")
        if arithmetic == "tfloat32" and device == "cpu":
            raise CompatibilityError("TensorFloat-32 is of NVIDIA's GPUs", code="tf32-needs-nvidia")

    def call_of(arithmetic: str, size: int) -> Call:
        if arithmetic == "int8":
            whole = torch.from_numpy(_numbers("int8", size)).to(device)
            return lambda: torch._int_mm(whole, whole)
        kind = torch.float32 if arithmetic == "tfloat32" else getattr(torch, arithmetic)
        real = torch.from_numpy(_numbers("float32", size)).to(device, kind)
        result = torch.empty_like(real)
        return lambda: torch.mm(real, real, out=result)

    @contextlib.contextmanager
    def make(arithmetic: str, size: int) -> Iterator[Call]:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if arithmetic == "tfloat32" else "highest")
        try:
            with torch.inference_mode():
                yield finishing(call_of(arithmetic, size), device)
        finally:
            torch.set_float32_matmul_precision(before)

    for arithmetic in arithmetics:
        yield Product("PyTorch", arithmetic, partial(check, arithmetic), partial(make, arithmetic))


def finishing(call: Call, device: str) -> Call:
    """The call, which then returns when the device has finished."""
    if device == "cpu":
        return call
    import torch

    def run_once() -> None:
        call()
        torch.cuda.synchronize(device)

    return run_once
