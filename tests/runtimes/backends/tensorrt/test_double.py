"""The double of TensorRT catches what it is there for; its names are held to the bindings in ``test_api_surface``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtimes.backends.tensorrt.batch_pieces import Piece
from runtimes.tensors.cuda_objects import CudaGraph
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.test_session import images


def test_the_double_catches_a_graph_whose_context_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = double.installed(monkeypatch)
    session = double.session(recorder)
    for _ in range(3):
        session.run({"input": images(3)})
    (lane,) = session._pools[0]._idle
    ((run, recorded),) = lane._runs._recorded.items()
    recorded.context.place(4, {})
    session.run({"input": images(3)})
    assert recorder.faults == ["graph-context-changed"]
    lane._runs._recorded[run] = replace(recorded, context=lane._runs.context)
    del recorded
    session.run({"input": images(3)})
    assert recorder.faults[1:] == ["graph-context-freed", "context-freed-busy"]


def test_the_double_catches_a_recording_before_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = double.installed(monkeypatch)
    session = double.session(recorder)
    session.run({"input": images(3)})
    (lane,) = session._pools[0]._idle
    context = lane._runs.context
    context.place(5, {})
    CudaGraph.capture(lane._stream, lambda: context.enqueue(lane._stream))
    assert recorder.faults == ["recorded-before-first-run"]


def test_the_double_catches_shared_memory_for_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = double.installed(monkeypatch)
    session = double.session(recorder)
    session.run({"input": images(3)})
    (lane,) = session._pools[0]._idle
    other = type(lane)(session._model, 0)
    other._runs.context.use_scratch(lane._runs._scratch)
    other.run({"input": images(3)}, session._empty(3), Piece(0, 3, 0))
    assert recorder.faults == ["activations-shared-by-streams"]
