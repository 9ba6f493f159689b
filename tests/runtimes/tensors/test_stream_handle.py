"""Streams of other libraries, by what the true classes have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from runtimes.errors import UsageError
from runtimes.tensors.stream_handle import LEGACY_DEFAULT, StreamLike, stream_handle
from tests.refusals import refuses


class Core:
    """As cuda.core's, whose own ``handle`` is no number."""

    handle = object()

    def __init__(self, version: int = 0) -> None:
        self._version = version

    def __cuda_stream__(self) -> tuple[int, int]:
        return self._version, 77


class Torch:
    cuda_stream = 78


class CuPy:
    ptr = 79


@pytest.mark.parametrize(
    ("stream", "handle"),
    [(4711, 4711), (0, LEGACY_DEFAULT), (2, 2), (Core(), 77), (Torch(), 78), (CuPy(), 79)],
)
def test_a_stream_of_any_library_has_its_handle(stream: StreamLike, handle: int) -> None:
    assert stream_handle(stream) == handle


def test_pytorchs_streams_have_what_is_read() -> None:
    assert hasattr(torch.cuda.Stream, "__cuda_stream__")
    assert hasattr(torch.cuda.ExternalStream, "__cuda_stream__")


@pytest.mark.parametrize(
    ("stream", "value"),
    [
        (True, "True"),
        (-1, "-1"),
        ("main", "a str"),
        (object(), "a object"),
        (Core(1), "a Core"),
        (np.ones(1), "ndarray"),
    ],
)
def test_what_is_no_stream_is_refused(stream: StreamLike, value: str) -> None:
    with refuses(UsageError, "stream-invalid", value, "torch.cuda.current_stream()"):
        stream_handle(stream)
