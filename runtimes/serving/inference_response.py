"""Answers of the Open Inference Protocol: metadata, outputs in JSON, and outputs in bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from runtimes.errors import CheckFailedError
from runtimes.serving.datatypes import DATATYPES
from runtimes.serving.inference_request import InferenceRequest
from runtimes.serving.model import VERSION, ServedModel
from runtimes.tensors.spec import Array, Arrays, TensorSpec

SERVER_NAME = "rexport"

EXTENSIONS = ("binary_tensor_data",)
"""The extensions of the protocol that the server has."""


def server_metadata(version: str) -> dict[str, object]:
    """Return the metadata of the server.

    Args:
        version: The version of rexport.
    """
    return {"name": SERVER_NAME, "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(model: ServedModel) -> dict[str, object]:
    """Return the metadata of a model: its inputs and outputs, where -1 stands for a size that may vary."""
    return {
        "name": model.name,
        "versions": [VERSION],
        "platform": f"{model.runtime.artifact.format.name}_{model.runtime.description.backend}",
        "inputs": [tensor_metadata(spec) for spec in model.runtime.inputs],
        "outputs": [tensor_metadata(spec) for spec in model.runtime.outputs],
    }


def tensor_metadata(spec: TensorSpec) -> dict[str, object]:
    """Return the metadata of one input or output."""
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": protocol_shape(spec)}


def protocol_shape(spec: TensorSpec) -> list[int]:
    """Return the shape of an input or output, with -1 for each size that may vary."""
    return [-1 if isinstance(size, str) else size for size in spec.shape]


def encode_response(model: ServedModel, request: InferenceRequest, outputs: Arrays) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the size of its JSON if binary tensors follow it.

    Args:
        model: The model that answers.
        request: The request, which says what outputs it wants and how.
        outputs: The outputs of the network by name.

    Raises:
        CheckFailedError: A number is NaN or infinite, which JSON cannot represent.
    """
    items, binary = [], []
    for name, as_bytes in request.outputs.items():
        array = outputs[name]
        item: dict[str, Any] = {"name": name, "datatype": DATATYPES[str(array.dtype)], "shape": list(array.shape)}
        if as_bytes:
            binary.append(to_bytes(array))
            item["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            item["data"] = _numbers(name, array)
        items.append(item)
    fields: dict[str, Any] = {"model_name": model.name, "model_version": VERSION}
    if request.id:
        fields["id"] = request.id
    text = json.dumps(fields | {"outputs": items}, separators=(",", ":")).encode()
    return (b"".join((text, *binary)), len(text)) if binary else (text, None)


def to_bytes(array: Array) -> bytes:
    """Return the bytes of an array, little-endian and C-ordered."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _numbers(name: str, array: Array) -> list[Any]:
    """Return the numbers of an array in C order. Each reads back as the same number of its dtype."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CheckFailedError(
            f"the output {name} of the network holds NaN or infinity, which JSON cannot represent",
            code="output-not-json",
            hint="ask for the output with binary_data",
        )
    numbers: list[Any] = array.ravel().tolist()
    return numbers
