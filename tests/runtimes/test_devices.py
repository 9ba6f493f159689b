from __future__ import annotations

import pytest

from runtimes.devices import CPU, CUDA, DeviceName, parse_device, parse_devices
from runtimes.errors import UsageError
from runtimes.tensors.presence import find_missing, identify
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt.cudadouble import Recorder, gpu_uuid
from tests.runtimes.backends.tensorrt.driverdouble import install


@pytest.mark.parametrize(
    ("text", "device", "name", "numbered"),
    [
        ("cpu", DeviceName(CPU), "cpu", "cpu"),
        ("cuda", DeviceName(CUDA), "cuda", "cuda:0"),
        ("CUDA:0", DeviceName(CUDA), "cuda", "cuda:0"),
        (" cuda:12 ", DeviceName(CUDA, 12), "cuda:12", "cuda:12"),
    ],
)
def test_a_name_is_read_and_written_again(text: str, device: DeviceName, name: str, numbered: str) -> None:
    assert parse_device(text) == device
    assert (str(device), device.numbered) == (name, numbered)
    assert parse_device(name) == parse_device(numbered) == device


@pytest.mark.parametrize("text", ["", "gpu", "tpu:0", "0", "cuda 1", "cpu,cuda"])
def test_an_unknown_name(text: str) -> None:
    with refuses(UsageError, "device-unknown", repr(text), "cpu, cuda or cuda:N"):
        parse_device(text)


@pytest.mark.parametrize(
    "text", ["cuda:", "cuda:-1", "cuda:x", "cuda:1:2", "cuda:²", "cpu:1", "cuda:99999", "cuda:0x1"]
)
def test_a_number_that_is_none(text: str) -> None:
    with refuses(UsageError, "device-number-invalid", repr(text)):
        parse_device(text)


def test_a_list_names_each_device_once() -> None:
    assert parse_devices("cuda:1,cuda,cuda:0") == (DeviceName(CUDA, 1), DeviceName(CUDA))
    with refuses(UsageError, "device-kinds-differ", "'cpu,cuda'"):
        parse_devices("cpu,cuda")


def test_which_devices_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = install(monkeypatch, Recorder(devices=2))
    assert find_missing(DeviceName(CPU)) is None
    assert find_missing(DeviceName(CUDA, 1)) is None
    missing = find_missing(DeviceName(CUDA, 2))
    assert missing is not None
    assert missing.code == "gpu-number-missing"
    there = identify(DeviceName(CUDA, 1))
    assert there is not None
    assert (there.name, there.uuid, identify(DeviceName(CPU))) == ("NVIDIA Double", str(gpu_uuid(1)), None)
    recorder.devices = 0
    missing = find_missing(DeviceName(CUDA))
    assert missing is not None
    assert missing.code == "gpu-not-visible"
    assert identify(DeviceName(CUDA)) is None
