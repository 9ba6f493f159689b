"""Settings of the process that PyTorch reads when it launches a kernel, applied to the kernels of one session.

PyTorch has two interfaces for the precision of float32: the older ``torch.set_float32_matmul_precision`` and the newer
``fp32_precision`` of each library and operator. Both are set, and so that they agree: PyTorch raises an error where one
is read while the other says something else, and TorchInductor reads both.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

LAUNCH_LOCK = threading.Lock()
"""The lock of the process for launching, recording and compiling the kernels of a program."""

# Looked up once: each look-up takes as long as setting the value, and every launch would need ten.
_BACKENDS: Any = torch.backends
_MKLDNN: Any = torch.backends.mkldnn
_CPU_MATMUL = _MKLDNN.matmul
_CUDNN: Any = torch.backends.cudnn
_MATMUL: Any = torch.backends.cuda.matmul
_CONV, _RNN = _CUDNN.conv, _CUDNN.rnn


@contextmanager
def apply_launch_settings(tf32: bool | None, search: bool = False) -> Iterator[None]:
    """Apply settings to the kernels launched in the ``with`` block, and restore those of the app after it.

    The settings belong to the process, and PyTorch reads them when it launches a kernel. Therefore sessions launch
    their kernels one after the other. This costs little: Python launches from one thread at a time anyway, and the lock
    does not wait for the device.

    Args:
        tf32: Whether float32 is computed in TensorFloat-32; ``None`` for a program that computes nothing in float32.
        search: Whether cuDNN times its algorithms for a convolution of a new shape, and keeps the fastest.
    """
    with LAUNCH_LOCK:
        searches = _CUDNN.benchmark
        settings = None if tf32 is None else _Float32Settings("tf32" if tf32 else "ieee")
        try:
            if search:
                _CUDNN.benchmark = True
            if settings is not None:
                settings.apply()
            yield
        finally:
            if settings is not None:
                settings.restore()
            _CUDNN.benchmark = searches


class _Float32Settings:
    """The precision of all float32 kernels on CUDA, and what it was before.

    Args:
        word: ``tf32`` or ``ieee``.
    """

    def __init__(self, word: str) -> None:
        self._word = word
        self._before: list[tuple[Any, str]] = []
        self._older: str | None = None

    def apply(self) -> None:
        """Set the precision.

        PyTorch does not tell an operator's own setting from one that it takes over from its library. The setting of
        cuDNN is therefore changed for all operators, and then that of the operators that do not follow. To write back
        the value of an operator that follows would detach it from its library, and the default of convolutions cannot
        be written at all.
        """
        own_matmul = _own(_MATMUL, _CUDNN)
        self._set_matrix_products(own_matmul)
        self._set(_CUDNN, self._word, _own(_CUDNN, _BACKENDS))
        for operator, before in ((_MATMUL, own_matmul), (_CONV, None), (_RNN, None)):
            value = operator.fp32_precision
            if value != self._word:
                self._set(operator, self._word, before or value)

    def restore(self) -> None:
        """Restore all settings that ``apply`` changed, also if it failed halfway."""
        if self._older is not None:
            torch.set_float32_matmul_precision(self._older)
        for place, value in reversed(self._before):
            place.fp32_precision = value

    def _set(self, place: Any, word: str, before: str) -> None:
        self._before.append((place, before))
        place.fp32_precision = word

    def _set_matrix_products(self, own_matmul: str) -> None:
        """Make the older setting agree, which sets the newer ones of CUDA and of oneDNN on the CPU as well."""
        own_on_cpu = _own(_CPU_MATMUL, _MKLDNN)
        if _CPU_MATMUL.fp32_precision not in ("none", "ieee"):
            # The older setting is one for both devices. Kernels on the CPU become more exact for this moment.
            self._set(_CPU_MATMUL, "ieee", own_on_cpu)
        older = _older_setting()
        if (older == "highest") != (self._word == "ieee"):
            self._before += [(_CPU_MATMUL, own_on_cpu), (_MATMUL, own_matmul)]
            self._older = older
            torch.set_float32_matmul_precision("highest" if self._word == "ieee" else "high")
            _CPU_MATMUL.fp32_precision = "ieee"


def _older_setting() -> str:
    """Return the older setting of matrix products, while oneDNN computes in float32."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # the newer interface has allowed TensorFloat-32, and the older one has not
        return "highest"


def _own(place: Any, parent: Any) -> str:
    """Return the setting of ``place`` itself: ``none`` if its value is that of its parent."""
    value: str = place.fp32_precision
    return "none" if value == parent.fp32_precision else value
