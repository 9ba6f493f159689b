"""A double of ``cuda.bindings.driver``, whose contexts are those of the double of the CUDA runtime."""

# ruff: noqa: N802, N803 - the names are the library's

from __future__ import annotations

import sys
from typing import Any

import cuda.bindings.driver as real
import pytest

from tests.runtimes.backends.tensorrt.cudadouble import Recorder, Result

OK = real.CUresult.CUDA_SUCCESS


class DriverDouble:
    """Stands for ``cuda.bindings.driver``: the contexts, which are those of the runtime."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def cuInit(self, Flags: int) -> Result:  # noqa: ARG002
        return (OK,)

    def cuDeviceGet(self, ordinal: int) -> Result:
        return OK if ordinal < self._recorder.devices else real.CUresult.CUDA_ERROR_INVALID_DEVICE, ordinal

    def cuDevicePrimaryCtxRetain(self, dev: int) -> Result:
        planned = self._recorder.codes.get("cuDevicePrimaryCtxRetain")
        code: Any = planned.pop(0) if planned else OK
        if code == OK:
            self._recorder.contexts.add(dev)
        return code, dev

    def cuCtxPushCurrent(self, ctx: int) -> Result:
        self._recorder.cuda.push(ctx)
        return (OK,)

    def cuCtxPopCurrent(self) -> Result:
        return OK, self._recorder.cuda.pop()


def install(patch: pytest.MonkeyPatch, recorder: Recorder) -> Recorder:
    """Puts the doubles of the CUDA runtime and driver in place of the true modules until the test ends."""
    patch.setitem(sys.modules, "cuda.bindings.runtime", recorder.cuda)
    patch.setitem(sys.modules, "cuda.bindings.driver", DriverDouble(recorder))
    return recorder
