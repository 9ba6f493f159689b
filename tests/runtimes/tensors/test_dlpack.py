"""Tensors of other libraries, taken where they lie: real capsules of NumPy and PyTorch, whose tensors are on the CPU,
which the parser is told to expect; and made ones that say they are on a GPU."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch

from runtimes.errors import InputError
from runtimes.tensors import dlpack
from runtimes.tensors.dlpack import CUDA, DeviceTensor, device_tensor, is_on_device, parse_capsule, wait_for_producer
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.devicememory import DeviceArray

CPU = 1


def _of_cpu(value: object, **arguments: object) -> DeviceTensor:
    return parse_capsule(value.__dlpack__(**arguments), value, CPU)  # type: ignore[attr-defined, arg-type]


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool"])
@pytest.mark.parametrize("take", [np.asarray, torch.from_numpy])
def test_a_tensor_is_found_where_it_lies(dtype: str, take: Callable[[object], object]) -> None:
    array = np.ones((2, 3, 4), dtype)
    found = _of_cpu(take(array))
    assert found == DeviceTensor(found.source, array.ctypes.data, (2, 3, 4), dtype, 0)
    assert found.ndim == 3


def test_numpys_capsules_with_a_version_are_read_too() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = _of_cpu(array, max_version=(1, 0))
    assert (found.pointer, found.shape, found.dtype) == (array.ctypes.data, (2, 3), "float32")


def test_a_slice_begins_where_it_begins() -> None:
    tensor = torch.zeros(4, 3)
    assert _of_cpu(tensor[1:]).pointer == tensor.data_ptr() + 12


def test_the_offset_of_the_first_byte_counts() -> None:
    array = np.zeros(4, np.float32)
    capsule = array.__dlpack__()
    held = dlpack._Managed.from_address(dlpack._GET_POINTER(capsule, b"dltensor"))
    held.tensor.byte_offset = 8
    assert parse_capsule(capsule, array, CPU).pointer == array.ctypes.data + 8


def test_another_order_is_refused_and_sizes_of_one_have_none() -> None:
    for tensor in (torch.zeros(2, 3).T, torch.zeros(4, 4)[:, :2]):
        with refuses(InputError, "dlpack-not-contiguous", tuple(tensor.shape), "tensor.contiguous()"):
            _of_cpu(tensor)
    last = torch.zeros(1, 3, 1, 8).to(memory_format=torch.channels_last)
    with refuses(InputError, "dlpack-not-contiguous"):
        _of_cpu(last)
    assert _of_cpu(torch.zeros(3, 1).T).shape == (1, 3)
    assert _of_cpu(torch.zeros(0, 5)[:, :2]).shape == (0, 2)


def test_types_that_numpy_has_not_are_named() -> None:
    assert _of_cpu(torch.zeros(2, dtype=torch.bfloat16)).dtype == "bfloat16"
    assert _of_cpu(torch.zeros(2, dtype=torch.complex64)).dtype == "complex64"


def test_types_that_are_unknown_are_refused() -> None:
    array = np.zeros(4, np.float32)
    capsule = array.__dlpack__()
    held = dlpack._Managed.from_address(dlpack._GET_POINTER(capsule, b"dltensor"))
    held.tensor.lanes = 4
    with refuses(InputError, "dlpack-type-unsupported", "type 2", "4 lanes"):
        parse_capsule(capsule, array, CPU)
    held.tensor.lanes, held.tensor.code = 1, 3
    with refuses(InputError, "dlpack-type-unsupported", "type 3"):
        parse_capsule(capsule, array, CPU)


@pytest.mark.parametrize("device_type", [CUDA, 3, 10])
def test_a_tensor_elsewhere_is_refused(device_type: int) -> None:
    with refuses(InputError, "dlpack-device-unsupported", "type 1"):
        parse_capsule(torch.zeros(2).__dlpack__(), torch.zeros(2), device_type)


def test_a_used_capsule_or_none_is_refused() -> None:
    tensor = torch.zeros(2)
    capsule = tensor.__dlpack__()
    torch.utils.dlpack.from_dlpack(capsule)
    for wrong in (capsule, object()):
        with refuses(InputError, "dlpack-capsule-used"):
            parse_capsule(wrong, tensor, CPU)


def test_another_major_version_is_refused() -> None:
    array = np.zeros(4, np.float32)
    capsule = array.__dlpack__(max_version=(1, 0))
    dlpack._Versioned.from_address(dlpack._GET_POINTER(capsule, b"dltensor_versioned")).major = 2
    with refuses(InputError, "dlpack-version-unsupported", "DLPack 2."):
        parse_capsule(capsule, array, CPU)


def test_a_tensor_that_learns_is_not_handed_over() -> None:
    with refuses(InputError, "dlpack-refused", "gradient", "tensor.detach().contiguous()"):
        device_tensor(torch.zeros(2, requires_grad=True))


def test_reading_a_capsule_leaves_it_to_its_maker() -> None:
    array = np.zeros(1000, np.float32)
    for _ in range(100):
        _of_cpu(array)
    gc.collect()
    assert ctypes.c_ssize_t.from_address(id(array)).value < 10  # references


def test_only_tensors_on_a_gpu_are_on_a_device() -> None:
    class Broken:
        def __dlpack_device__(self) -> tuple[int, int]:
            raise ValueError("no device")

    on_gpu = DeviceArray(Recorder().cuda.memory, np.zeros(2, np.float32))
    assert is_on_device(on_gpu)
    for other in (np.zeros(2), torch.zeros(2), [1.0], None, Broken(), torch.zeros(2, device="meta")):
        assert not is_on_device(other)


def test_a_tensor_on_a_gpu_is_parsed_and_its_queue_is_awaited() -> None:
    on_gpu = DeviceArray(Recorder().cuda.memory, np.zeros((2, 3), np.float16), ordinal=1)
    found = device_tensor(on_gpu)
    assert found == DeviceTensor(on_gpu, on_gpu.pointer, (2, 3), "float16", 1)
    wait_for_producer(found, 4711)
    assert on_gpu.asked == [1, 4711]
