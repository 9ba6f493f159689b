"""A network small enough to compute its outputs in NumPy: a convolution, a mean over the image, a matrix product.

The network is written in each format that a backend opens and that needs no library of another backend: ONNX byte by
byte, and a ``.pt2`` program by PyTorch, which a backend for such programs has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from runtimes import files
from runtimes.artifacts.artifact import publish, vectors_name
from runtimes.artifacts.manifest import TF32, FileRecord, Manifest, Parity, Weights
from runtimes.parity import BATCHES, IMAGES
from runtimes.protocol import Array, TensorSpec

_CHANNELS, _SIZE, _FILTERS, _CLASSES = 3, 16, 8, 10
_INPUT = TensorSpec("input", "float32", ("batch", _CHANNELS, _SIZE, _SIZE))
_OUTPUT = TensorSpec("logits", "float32", ("batch", _CLASSES))

_TOLERANCE, _TOLERANCE_TF32 = 1e-4, 1e-2
"""The limits of the relative difference of logits: in float32, and for a GPU that may round to TensorFloat-32."""


def write(format: str, folder: Path, tf32: bool) -> Path:
    """Write the model as an artifact and return its path.

    Args:
        format: One of ``FORMATS``.
        folder: The folder, which exists.
        tf32: Whether the manifest allows TensorFloat-32.

    Raises:
        ResourceError: The artifact cannot be written.
    """
    images = np.random.default_rng(0).standard_normal((IMAGES, _CHANNELS, _SIZE, _SIZE), np.float32)
    target = folder / f"sample.{format}"
    with files.temporary_file(target) as model, files.temporary_file(target) as packed:
        FORMATS[format](model)
        with packed.open("wb") as file:
            np.savez(file, inputs=images, logits=logits(images))
        digest = files.sha256_of(packed)
        record = FileRecord(vectors_name(target, digest), digest)
        return publish(model, target, _describe(format, model, record, tf32), packed).path


def _describe(format: str, model: Path, vectors: FileRecord, tf32: bool) -> Manifest:
    tolerance = _TOLERANCE_TF32 if tf32 else _TOLERANCE
    return Manifest(
        name="sample",
        format=format,
        sha256=files.sha256_of(model),
        size_bytes=model.stat().st_size,
        variant={},
        weights=Weights("random", False, "0" * 64, seed=0),
        precision=TF32 if tf32 else "fp32",
        inputs=(_INPUT,),
        outputs=(_OUTPUT,),
        labels=None,
        preprocessing=None,
        dataset=None,
        opset=_OPSET if format == "onnx" else None,
        producers={},
        parent=None,
        parity=Parity("NumPy float64", "none", f"noise, {IMAGES} images", BATCHES, 0.0, 0.0, tolerance, 1.0),
        vectors=vectors,
    )


def weights() -> dict[str, Array]:
    """Return the weights as float32: filters (out, in, 3, 3), bias (out,), matrix (classes, in)."""
    random = np.random.default_rng(1)
    shapes = {"filters": (_FILTERS, _CHANNELS, 3, 3), "bias": (_FILTERS,), "matrix": (_CLASSES, _FILTERS)}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def logits(images: Array) -> Array:
    """Return the logits (n, classes) for images (n, 3, h, w) as float32, computed in float64."""
    arrays = {name: array.astype(np.float64) for name, array in weights().items()}
    framed = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3), axis=(2, 3))  # (n, c, h, w, 3, 3)
    convolved = np.einsum("nchwij,ocij->nohw", windows, arrays["filters"]) + arrays["bias"][:, None, None]
    pooled = np.maximum(convolved, 0).mean(axis=(2, 3))  # (n, filters)
    outputs: Array = pooled @ arrays["matrix"].T
    return outputs.astype(np.float32)


def _write_pt2(path: Path) -> None:
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in weights().items()}
    convolution = torch.nn.Conv2d(_CHANNELS, _FILTERS, 3, padding=1)
    linear = torch.nn.Linear(_FILTERS, _CLASSES, bias=False)
    convolution.load_state_dict({"weight": tensors["filters"], "bias": tensors["bias"]})
    linear.load_state_dict({"weight": tensors["matrix"]})
    network = torch.nn.Sequential(
        convolution, torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), linear
    ).eval()
    example = torch.zeros(2, _CHANNELS, _SIZE, _SIZE)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with path.open("wb") as file:
        torch.export.save(program, file)


# Wire encoding of the messages of onnx.proto (protocol buffers): field number and wire type, then a varint or bytes.

_OPSET, _IR_VERSION, _FLOAT = 18, 9, 1
_INT, _INTS = 2, 7  # values of AttributeProto.AttributeType


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _message(*fields: tuple[int, int | str | bytes]) -> bytes:
    content = b""
    for number, value in fields:
        if isinstance(value, int):
            content += _varint(number << 3) + _varint(value)
        else:
            text = value.encode() if isinstance(value, str) else value
            content += _varint(number << 3 | 2) + _varint(len(text)) + text
    return content


def _node(operator: str, inputs: Sequence[str], output: str, **attributes: int | tuple[int, ...]) -> bytes:
    encoded = []
    for name, value in attributes.items():
        kind, number, values = (_INT, 3, (value,)) if isinstance(value, int) else (_INTS, 8, value)
        encoded.append(_message((1, name), *((number, each) for each in values), (20, kind)))
    names = ((1, name) for name in inputs)
    return _message(*names, (2, output), (3, operator.lower()), (4, operator), *((5, each) for each in encoded))


def _tensor(name: str, array: Array) -> bytes:
    return _message(*((1, size) for size in array.shape), (2, _FLOAT), (8, name), (9, array.astype("<f4").tobytes()))


def _value(spec: TensorSpec) -> bytes:
    sizes = (_message((1, size) if isinstance(size, int) else (2, size)) for size in spec.shape)
    tensor = _message((1, _FLOAT), (2, _message(*((1, size) for size in sizes))))
    return _message((1, spec.name), (2, _message((1, tensor))))


def onnx_bytes() -> bytes:
    """Return the network as an ONNX file."""
    nodes = (
        _node("Conv", ("input", "filters", "bias"), "convolved", kernel_shape=(3, 3), pads=(1, 1, 1, 1)),
        _node("Relu", ("convolved",), "positive"),
        _node("GlobalAveragePool", ("positive",), "pooled"),
        _node("Flatten", ("pooled",), "flat", axis=1),
        _node("Gemm", ("flat", "matrix"), "logits", transB=1),
    )
    graph = _message(
        *((1, node) for node in nodes),
        (2, "sample"),
        *((5, _tensor(name, array)) for name, array in weights().items()),
        (11, _value(_INPUT)),
        (12, _value(_OUTPUT)),
    )
    return _message((1, _IR_VERSION), (2, "rexport"), (7, graph), (8, _message((1, ""), (2, _OPSET))))


FORMATS: dict[str, Callable[[Path], object]] = {"onnx": lambda path: path.write_bytes(onnx_bytes()), "pt2": _write_pt2}
"""The functions that write the model, by format."""
