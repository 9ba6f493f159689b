"""Square matrix products in each installed library, which show the peak of multiply-adds per second of a machine.

Backends open a graph with one product, with the same settings as a network. PyTorch's operators are called directly.
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
from runtimes.devices import parse_device
from runtimes.errors import CompatibilityError
from runtimes.protocol import Array, Backend, summarise_precisions

Call: TypeAlias = Callable[[], object]
"""A call without arguments."""


@dataclass(frozen=True)
class Product:
    """A matrix product in one library.

    Attributes:
        library: The name of the library.
        arithmetic: The arithmetic, by the names in ``Ran.arithmetic``.
        check: Raises an error if the library cannot compute the product, or computes it in another arithmetic.
        make: Returns for a size n a call that multiplies two n x n matrices and returns when the product is finished.
    """

    library: str
    arithmetic: str
    check: Call
    make: Callable[[int], AbstractContextManager[Call]]


def products(threads: int, device: str, arithmetics: Sequence[str], folder: Path) -> tuple[Product, ...]:
    """Return all products that can be tried here. PyTorch is imported if it is installed.

    Args:
        threads: The number of threads.
        device: The device.
        arithmetics: The arithmetics.
        folder: The folder for graphs, which are written with onnx.
    """
    opened = [
        _open_product(backend, arithmetic, threads, device, folder)
        for backend in (runtimes.available_backends() if importlib.util.find_spec("onnx") else ())
        if FORMAT in backend.formats and parse_device(device).kind in backend.devices and not backend.missing()
        for arithmetic in arithmetics
        if arithmetic in _ONNX_TYPES
    ]
    return (*opened, *_eager(threads, device, arithmetics))


FORMAT = "onnx"
"""The format of the graphs."""

_ONNX_TYPES = {"float32": "FLOAT", "bfloat16": "BFLOAT16", "float16": "FLOAT16", "int8": "INT8"}
"""The type of the weights by arithmetic. TensorFloat-32 is not a type."""

_OPSET, _IR_VERSION = 22, 10
"""The opset and IR version of the graphs. The opset is the first with bfloat16."""

_CHECKED = 64
"""The size of the product that the profiler of a backend checks."""


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
            executed = runtime.description.precision
        if executed == arithmetic and backend.profile is not None:
            executed = summarise_precisions(runtimes.profile(path, feeds, backend.name, device, threads))
        if executed != arithmetic:
            raise CompatibilityError(
                f"{backend.name} executes {arithmetic} products as {executed}", code="arithmetic-differs"
            )

    @contextlib.contextmanager
    def make(size: int) -> Iterator[Call]:
        with open_graph(size) as (_, runtime, feeds):
            yield runtime.bind(feeds)

    return Product(backend.name, arithmetic, check, make)


def _numbers(dtype: str, size: int) -> Array:
    """Return a matrix (size, size) of seeded noise: between -0.5 and 0.5, or over all integers of the type."""
    random, kind = np.random.default_rng(0), np.dtype(dtype)
    if kind.kind == "f":
        return (random.random((size, size), np.float32) - np.float32(0.5)).astype(kind)
    return random.integers(np.iinfo(kind).min, np.iinfo(kind).max, (size, size), kind, endpoint=True)


def graph(arithmetic: str, size: int) -> bytes:
    """Return an ONNX file with the product of its input (size, size) and weights of the same shape.

    The graph is typed as ``rexport onnx`` types a network: casts convert to a narrow float at the input and from it at
    the output. For int8 there are Q/DQ nodes with unsigned activations.

    Args:
        arithmetic: The arithmetic.
        size: The number of rows and columns.
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
    """Yield the products of PyTorch's own operators."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)

    def check(arithmetic: str) -> None:
        if device != "cpu" and not torch.cuda.is_available():
            raise CompatibilityError("PyTorch finds no GPU", code="product-needs-gpu")
        if arithmetic == "tfloat32" and device == "cpu":
            raise CompatibilityError("only NVIDIA GPUs support TensorFloat-32", code="tf32-needs-nvidia")

    def call_of(arithmetic: str, size: int) -> Call:
        if arithmetic == "int8":
            integers = torch.from_numpy(_numbers("int8", size)).to(device)
            return lambda: torch._int_mm(integers, integers)
        kind = torch.float32 if arithmetic == "tfloat32" else getattr(torch, arithmetic)
        floats = torch.from_numpy(_numbers("float32", size)).to(device, kind)
        result = torch.empty_like(floats)
        return lambda: torch.mm(floats, floats, out=result)

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
    """Return a function that makes the ``call`` and returns when the ``device`` has finished."""
    if device == "cpu":
        return call
    import torch

    def run_once() -> None:
        call()
        torch.cuda.synchronize(device)

    return run_once
