"""Networks that need more memory than there is end before anything is allocated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.export_request import ExportRequest
from exporter.models import memory
from exporter.models.memory import least_bytes, least_gradient_bytes, require_gradient_memory, require_memory
from exporter.models.resnet import build
from exporter.models.variants import Variant, variant
from exporter.network import prepare
from runtimes.errors import ResourceError
from tests.conftest import SILENT
from tests.refusals import refuses

SMALL = variant("resnet20")


def test_the_bound_counts_parameters_input_and_largest_layer() -> None:
    assert least_bytes(SMALL, 2) - least_bytes(SMALL, 1) == 4 * (3 + 16) * 32 * 32
    assert least_bytes(SMALL, 0) == pytest.approx(4 * 269_722, rel=0.01)


@pytest.mark.parametrize(
    ("network", "images", "option"),
    [
        (replace(SMALL, in_channels=10**9), 1, "--in-channels"),
        (replace(SMALL, classes=10**12), 1, "--num-classes"),
        (replace(SMALL, size=(10**6, 10**6)), 1, "--size"),
        (SMALL, 10**12, "--batch"),
    ],
)
def test_the_hint_names_the_option(network: Variant, images: int, option: str) -> None:
    with refuses(ResourceError, "memory-insufficient", option):
        require_memory(network, images)


def test_what_fits_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: least_bytes(SMALL, 7))
    require_memory(SMALL, 7)
    with refuses(ResourceError, "memory-insufficient"):
        require_memory(SMALL, 8)
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    require_memory(replace(SMALL, in_channels=10**9))


def test_gradients_need_the_outputs_of_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = 16 * 32**2 * 7 + 32 * 16**2 * 6 + 64 * 8**2 * 6 + 10
    assert least_gradient_bytes(SMALL, 2) - least_gradient_bytes(SMALL, 1) == 8 * (3 * 32**2 + outputs)
    monkeypatch.setattr(memory, "available_bytes", lambda: least_gradient_bytes(SMALL, 7))
    require_gradient_memory(SMALL, 7)
    with refuses(ResourceError, "memory-insufficient", "--images"):
        require_gradient_memory(SMALL, 8)


def test_every_way_to_a_network_asks_first() -> None:
    with refuses(ResourceError, "memory-insufficient"):
        build(replace(SMALL, in_channels=10**9))
    with refuses(ResourceError, "memory-insufficient"):
        prepare(ExportRequest(SMALL, "net.onnx", batch=10**12), SILENT)
