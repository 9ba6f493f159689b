"""The double of TensorRT catches what it is there for; its names are held to the bindings in ``test_api_surface``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtimes.backends.tensorrt.batch_pieces import Piece
from runtimes.backends.tensorrt.streams import _Run
from runtimes.tensors.cuda import CudaGraph
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.test_session import images


def test_the_double_catches_a_graph_whose_context_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = double.installed(monkeypatch)
    session = double.session(recorder)
    for _ in range(3):
        session.run({"input": images(3)})
    (lane,) = session._pools[0]._idle
    ((run, recorded),) = lane._recorded.items()
    recorded.context.place(4, {})
    session.run({"input": images(3)})
    assert recorder.faults == ["graph-context-changed"]
    lane._recorded[run] = replace(recorded, context=lane._plain_context())
    del recorded
    session.run({"input": images(3)})
    assert recorder.faults[1:] == ["graph-context-freed", "context-freed-busy"]


def test_the_double_catches_a_recording_before_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = double.installed(monkeypatch)
    session = double.session(recorder)
    session.run({"input": images(3)})
    (lane,) = session._pools[0]._idle
    run = _Run(5)
    lane._place(lane._plain_context(), run)
    CudaGraph.capture(lane._stream, lambda: lane._queue(lane._plain_context(), run))
    assert recorder.faults == ["recorded-before-first-run"]


def test_the_double_catches_shared_memory_for_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = double.installed(monkeypatch)
    session = double.session(recorder)
    session.run({"input": images(3)})
    (lane,) = session._pools[0]._idle
    other = type(lane)(session._model, 0)
    other._plain_context()._native.set_device_memory(lane._scratch.pointer, lane._scratch.size_bytes)
    other.run({"input": images(3)}, session._empty(3), Piece(0, 3, 0))
    assert recorder.faults == ["activations-shared-by-streams"]
