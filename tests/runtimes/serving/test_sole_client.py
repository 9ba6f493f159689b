"""The one client of a server, whose requests run in the thread of the event loop."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from starlette.requests import Request

from runtimes import Artifact
from runtimes.serving.inference_request import InferenceRequest
from runtimes.serving.metrics import ServingMetrics
from runtimes.serving.model import ServedModel
from runtimes.serving.service import Service
from runtimes.serving.settings import ServingSettings
from runtimes.serving.sole_client import BRIEF_BYTES, SOLE_S, SoleClient, connection_of

ONE, OTHER = ("127.0.0.1", 1), ("127.0.0.1", 2)


def test_a_client_is_sole_after_a_while_without_others() -> None:
    known = SoleClient()
    assert not known.is_sole(ONE, 0.0)
    assert not known.is_sole(ONE, SOLE_S)
    assert known.is_sole(ONE, SOLE_S + 0.001)
    assert known.is_sole(ONE, 100.0)


def test_another_client_ends_it_for_both() -> None:
    known = SoleClient()
    known.is_sole(ONE, 0.0)
    assert not known.is_sole(OTHER, 1.0)
    assert not known.is_sole(ONE, 1.05)
    assert known.is_sole(ONE, 1.2)


def test_a_connection_of_many_requests_is_never_sole() -> None:
    known = SoleClient()
    known.is_sole(None, 0.0)
    assert not known.is_sole(None, 100.0)


@pytest.mark.parametrize(
    ("version", "size", "expected"),
    [("1.1", 1, ONE), ("1.0", BRIEF_BYTES, ONE), ("1.1", BRIEF_BYTES + 1, None), ("2", 1, None), ("3", 1, None)],
)
def test_connections_by_version_and_size(version: str, size: int, expected: object) -> None:
    request = Request({"type": "http", "headers": [], "http_version": version, "client": ONE})
    assert connection_of(request, bytes(size)) == expected


def test_only_a_sole_client_of_a_fast_network_runs_in_the_loop(
    onnx_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []

    def prepare() -> InferenceRequest:
        threads.append(threading.current_thread() is threading.main_thread())
        return InferenceRequest("", {"input": np.zeros((1, 3, 32, 32), np.float32)}, {})

    async def ask(service: Service, connections: list[object]) -> list[bool]:
        threads.clear()
        for connection in connections:
            await service.run(model, prepare, connection)
        return list(threads)

    monkeypatch.setattr("runtimes.serving.sole_client.SOLE_S", 0.0)
    monkeypatch.setattr("runtimes.serving.service.BRIEF_S", 60.0)
    model = ServedModel.open(onnx_artifact.path)
    service = Service([model], ServingSettings(), ServingMetrics())
    assert asyncio.run(ask(service, [ONE, ONE, ONE, OTHER, OTHER, None])) == [False, True, True, False, True, False]
    monkeypatch.setattr("runtimes.serving.service.BRIEF_S", 0.0)
    assert asyncio.run(ask(service, [ONE, ONE, ONE])) == [False, False, False]
    service.close()
    waiting = Service([model], ServingSettings(delay_s=0.001), ServingMetrics())
    monkeypatch.setattr("runtimes.serving.service.BRIEF_S", 60.0)
    assert asyncio.run(ask(waiting, [ONE, ONE, ONE])) == [False, False, False]
    waiting.close()
    model.close()
