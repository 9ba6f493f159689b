"""Requests of the Open Inference Protocol in JSON, with or without the extension for binary tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtimes.errors import InputError, quote
from runtimes.serving.datatypes import check_shape, dtype_of, from_bytes, from_numbers
from runtimes.tensors.spec import Array, Arrays, TensorSpec
from runtimes.tensors.validation import check_feeds

MAX_TENSORS = 32
"""The number of inputs or outputs that a request may name, at most."""

MAX_ID = 256
"""The number of characters of a request's id, at most."""


@dataclass(frozen=True)
class InferenceRequest:
    """A parsed request.

    Attributes:
        id: The client's name for the request, or an empty string.
        feeds: The inputs by name, which fit the network.
        outputs: For each output of the answer, whether it is binary.
        timeout_s: The time that the client gives the request to wait, or ``None``.
    """

    id: str
    feeds: Arrays
    outputs: Mapping[str, bool]
    timeout_s: float | None = None


def parse_request(
    body: bytes, header_bytes: int | None, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> InferenceRequest:
    """Return the request in a body.

    Args:
        body: The body: JSON, then the bytes of binary tensors in the order of the inputs.
        header_bytes: The size of the JSON, or ``None`` if there are no binary tensors.
        inputs: The inputs of the network.
        outputs: The outputs of the network.

    Raises:
        InputError: The body is no valid request, or does not fit the network.
    """
    if header_bytes is not None and not 0 <= header_bytes <= len(body):
        raise InputError(
            f"the JSON is said to have {header_bytes:,} bytes, but the body has {len(body):,}",
            code="request-header-size",
        )
    fields = _parse_json(body if header_bytes is None else body[:header_bytes])
    binary = memoryview(body)[len(body) if header_bytes is None else header_bytes :]
    parameters = _parameters(fields, "the request", ("binary_data_output", "timeout"))
    id = fields.get("id", "")
    if not isinstance(id, str) or len(id) > MAX_ID:
        raise InputError(f"the id of the request is not a text of up to {MAX_ID} characters", code="request-id-invalid")
    feeds = _read_inputs(_list_of_objects(fields, "inputs"), binary)
    requested = _list_of_objects(fields, "outputs") if "outputs" in fields else []
    return InferenceRequest(
        id,
        check_feeds(inputs, feeds),
        choose_outputs(_binary_of(requested, bool(parameters.get("binary_data_output"))), outputs)
        or dict.fromkeys((spec.name for spec in outputs), bool(parameters.get("binary_data_output"))),
        _timeout_s(parameters.get("timeout")),
    )


def choose_outputs(requested: Mapping[str, bool], outputs: tuple[TensorSpec, ...]) -> dict[str, bool]:
    """Return the requested outputs in the order of the request.

    Args:
        requested: The names of the outputs, each with whether it is binary.
        outputs: The outputs of the network.

    Raises:
        InputError: The network has no output of a name.
    """
    known = [spec.name for spec in outputs]
    for name in requested:
        if name not in known:
            raise InputError(
                f"the network has no output {quote(name)!r}, only {', '.join(known)}", code="requested-output-unknown"
            )
    return dict(requested)


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is not valid JSON: {quote(error)}", code="request-json-invalid") from error
    if not isinstance(fields, dict):
        raise InputError("the request is not an object of JSON", code="request-not-object")
    return fields


def _list_of_objects(fields: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a field that is a list of objects, each with a name of its own."""
    items = fields.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items) or len(items) > MAX_TENSORS:
        raise InputError(
            f"the field {key} of the request is not a list of up to {MAX_TENSORS} objects", code="request-field-invalid"
        )
    names = [item.get("name") for item in items]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise InputError(f"the field {key} of the request needs a different name in each object", code="request-names")
    return items


def _parameters(item: Mapping[str, Any], where: str, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the parameters of an object. Those that the server does not know are refused, and not ignored."""
    parameters = item.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InputError(f"the parameters of {where} are not an object", code="parameters-invalid")
    for name in parameters:
        if name not in known:
            raise InputError(
                f"the parameter {quote(name)!r} of {where} is not supported",
                code="parameter-unsupported",
                hint=f"only {', '.join(known)} can be given here" if known else None,
            )
    return parameters


def _read_inputs(items: list[dict[str, Any]], binary: memoryview) -> Arrays:
    feeds: Arrays = {}
    for item in items:
        size = _parameters(item, f"input {quote(item['name'])}", ("binary_data_size",)).get("binary_data_size")
        if size is None:
            feeds[item["name"]] = _array(item, None)
            continue
        if type(size) is not int or not 0 <= size <= len(binary) or "data" in item:
            raise InputError(
                f"input {quote(item['name'])}: binary_data_size is {quote(size)}, and {len(binary):,} bytes are left",
                code="binary-size-invalid",
            )
        feeds[item["name"]] = _array(item, binary[:size])
        binary = binary[size:]
    if len(binary):
        raise InputError(f"{len(binary):,} bytes of the body belong to no input", code="binary-bytes-left")
    return feeds


def _array(item: dict[str, Any], content: memoryview | None) -> Array:
    name = item["name"]
    dtype, shape = dtype_of(item.get("datatype"), name), check_shape(item.get("shape"), name)
    if content is None:
        return from_numbers(item.get("data"), dtype, shape, name)
    return from_bytes(content, dtype, shape, name)


def _binary_of(items: list[dict[str, Any]], default: bool) -> dict[str, bool]:
    return {
        item["name"]: bool(
            _parameters(item, f"output {quote(item['name'])}", ("binary_data",)).get("binary_data", default)
        )
        for item in items
    }


def _timeout_s(microseconds: object) -> float | None:
    if microseconds is None or microseconds == 0:
        return None
    if not isinstance(microseconds, int) or isinstance(microseconds, bool) or microseconds < 0:
        raise InputError(
            f"the timeout {quote(microseconds)} is not a number of microseconds", code="request-timeout-invalid"
        )
    return microseconds / 1e6
