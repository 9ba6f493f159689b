"""The handle of a CUDA stream that another library made."""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

from runtimes.errors import UsageError

LEGACY_DEFAULT = 1
"""CUDA's handle of the default stream that all threads share. The handle 0 means the same stream."""


@runtime_checkable
class SupportsCudaStream(Protocol):
    """A stream that gives its handle by the protocol of cuda.core, as those of PyTorch and cuda.core."""

    def __cuda_stream__(self) -> tuple[int, int]:
        """Return the version of the protocol, 0, and the handle."""


StreamLike: TypeAlias = "int | SupportsCudaStream | object"
"""A stream of the caller: its handle as a number, or an object of PyTorch, CuPy, cuda.core or another library."""

_ATTRIBUTES = ("cuda_stream", "ptr")
"""The attributes in which PyTorch and CuPy keep the handle."""


def stream_handle(stream: StreamLike) -> int:
    """Return the handle of a CUDA stream of the caller.

    Args:
        stream: The handle as an integer; an object with ``__cuda_stream__``; or an object with the handle in
            ``cuda_stream`` (PyTorch) or ``ptr`` (CuPy).

    Raises:
        UsageError: The object is no stream, or the handle is negative.
    """
    handle = _read_handle(stream)
    if handle is None or handle < 0:
        raise UsageError(
            f"stream must be a CUDA stream, not {_describe(stream)}",
            code="stream-invalid",
            hint="pass torch.cuda.current_stream(), cupy.cuda.get_current_stream(), or the handle as an integer",
        )
    return handle or LEGACY_DEFAULT


def _read_handle(stream: StreamLike) -> int | None:
    if isinstance(stream, bool):
        return None
    if isinstance(stream, int):
        return stream
    if isinstance(stream, SupportsCudaStream):
        version, handle = stream.__cuda_stream__()
        return int(handle) if version == 0 else None
    handles = (getattr(stream, name, None) for name in _ATTRIBUTES)
    return next((handle for handle in handles if isinstance(handle, int)), None)


def _describe(stream: StreamLike) -> str:
    return str(stream) if isinstance(stream, int) else f"a {type(stream).__name__}"
