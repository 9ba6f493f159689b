from __future__ import annotations

from typing import Any

import click
import pytest
from click.shell_completion import CompletionItem

from exporter.commands.options import require_device
from exporter.commands.values import DEVICE, DEVICE_OR_AUTO, DEVICES
from runtimes.errors import BackendUnavailableError
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.driverdouble import install

CONTEXT: Any = click.Context(click.Command("any"))
OPTION: Any = click.Option(["--device"])


def words(items: list[CompletionItem]) -> list[str]:
    return [item.value for item in items]


@pytest.mark.parametrize(
    ("kind", "text", "device"),
    [
        (DEVICE, "CPU", "cpu"),
        (DEVICE, "cuda:0", "cuda"),
        (DEVICE, "cuda:3", "cuda:3"),
        (DEVICE_OR_AUTO, "auto", "auto"),
        (DEVICES, "cuda,cuda:1", "cuda:0,cuda:1"),
        (DEVICES, "cuda:1", "cuda:1"),
    ],
)
def test_a_device_has_one_spelling(kind: Any, text: str, device: str) -> None:
    assert kind.convert(text, OPTION, CONTEXT) == device


@pytest.mark.parametrize(
    ("kind", "text"), [(DEVICE, "auto"), (DEVICE, "cuda:0,cuda:1"), (DEVICES, "cpu,cuda"), (DEVICE_OR_AUTO, "gpu")]
)
def test_what_an_option_does_not_take(kind: Any, text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, OPTION, CONTEXT)


def test_a_shell_completes_the_gpus_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = install(monkeypatch, Recorder(devices=2))
    assert words(DEVICE.shell_complete(CONTEXT, OPTION, "")) == ["cpu", "cuda"]
    assert words(DEVICE_OR_AUTO.shell_complete(CONTEXT, OPTION, "a")) == ["auto"]
    assert words(DEVICE.shell_complete(CONTEXT, OPTION, "cuda")) == ["cuda", "cuda:0", "cuda:1"]
    assert words(DEVICES.shell_complete(CONTEXT, OPTION, "cuda:0,cuda:")) == ["cuda:0,cuda:0", "cuda:0,cuda:1"]
    recorder.devices = 0
    assert words(DEVICE.shell_complete(CONTEXT, OPTION, "cuda")) == ["cuda"]


def test_each_named_gpu_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Recorder(devices=2))
    for device in (None, "cpu", "auto", "cuda", "cuda:1", "cuda:0,cuda:1"):
        require_device(device)
    with refuses(BackendUnavailableError, "device-missing", "--device cuda:2", "cuda:1 NVIDIA Double"):
        require_device("cuda:0,cuda:2")
