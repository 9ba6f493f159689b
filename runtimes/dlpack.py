"""Tensors that lie on a device already, taken where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class SupportsDLPack(Protocol):
    """What PyTorch, CuPy, JAX and others give their tensors: the array API's interchange protocol."""

    def __dlpack__(self, *, stream: int | None = None) -> object: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class DeviceTensor:
    """A C-ordered tensor in the memory of a CUDA device. ``source`` owns it and is kept alive."""

    source: SupportsDLPack
    pointer: int
    shape: tuple[int, ...]
    dtype: str
    device: int
