"""torch's part of ONNX exports, at the price of one where a process makes many of the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from exporter.network import Network
from exporter.targets import onnx_file

if TYPE_CHECKING:
    from onnx import ModelProto


@contextmanager
def traced_once() -> Iterator[None]:
    """While it lasts, a network that was traced before, with the same weights, outputs, batch and opset, is not traced
    again.

    All that follows the trace is done each time: typing, writing and every check.
    """
    trace, known = onnx_file._trace, dict[tuple[object, ...], bytes]()

    def traced(network: Network, batch: int | None, opset: int) -> ModelProto:
        from onnx import load_from_string

        key = (network.variant, network.weights.sha256, network.outputs, batch, opset)
        if key not in known:
            known[key] = trace(network, batch, opset).SerializeToString()
        return load_from_string(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "_trace", traced)
        yield
