"""Tensors that stay where they are: with the real library, on the processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from benchmarks.worker.inputs import ROTATION
from runtimes import TensorSpec
from runtimes.backends.onnxruntime import session_factory
from runtimes.backends.onnxruntime.bound_tensors import MAX_RECORDINGS, MAX_UNRECORDED_SLOTS, BoundModel, Slot, Slots
from runtimes.protocol import Array
from tests.runtimes.backends.onnxruntime import graphs


def model(path: Path) -> BoundModel:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return BoundModel(session, *session_factory.specs(session), device="cpu")


@pytest.fixture
def twice(tmp_path: Path) -> BoundModel:
    return model(graphs.written(tmp_path / "twice.onnx"))


def rows(*values: float) -> Array:
    return np.repeat(np.array(values, np.float32)[:, None], 4, axis=1)


def test_each_run_answers_what_it_was_filled_with(twice: BoundModel) -> None:
    slot = Slot(twice, ((2, 4),))
    for first, second in ((1, 2), (-3, 4), (5, 0)):
        slot.fill({"x": rows(first, second)})
        slot.run()
        np.testing.assert_array_equal(slot.results()["y"], np.maximum(2 * rows(first, second), 0))
    slot.fill({"x": rows(7, 8)})
    slot.queue()
    np.testing.assert_array_equal(slot.results()["y"], rows(14, 16))


def test_answers_are_fresh(twice: BoundModel) -> None:
    slot = Slot(twice, ((1, 4),))
    slot.fill({"x": rows(1)})
    slot.run()
    first = slot.results()["y"]
    slot.fill({"x": rows(2)})
    slot.run()
    np.testing.assert_array_equal(first, rows(2))
    assert first.flags.writeable


def test_its_tensors_stay_where_they_are(twice: BoundModel) -> None:
    slot = Slot(twice, ((2, 4),))
    places = set()
    for value in range(5):
        slot.fill({"x": rows(value, value)})
        slot.run()
        places.add((slot._inputs["x"].data_ptr(), slot._binding.get_outputs()[0].data_ptr()))
    assert len(places) == 1


def test_an_output_whose_size_is_not_known_before(tmp_path: Path) -> None:
    node = helper.make_node("NonZero", ["x"], ["y"])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 4))
    made = helper.make_tensor_value_info("y", TensorProto.INT64, (2, "found"))
    graph = helper.make_graph([node], "places", [given], [made])
    path = tmp_path / "places.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    unknown = model(path)
    assert unknown.output_shapes(((2, 4),)) is None
    slot = Slot(unknown, ((2, 4),))
    for values, count in (((0, 1), 4), ((1, 1), 8), ((0, 0), 0)):
        slot.fill({"x": rows(*values)})
        slot.run()
        assert slot.results()["y"].shape == (2, count)
    assert Slots(unknown, recording=True).get(((2, 4),)).record is None


def test_outputs_follow_from_the_inputs() -> None:
    inputs = (TensorSpec("x", "float32", ("n", 3)), TensorSpec("m", "float32", ("n", "k")))
    outputs = (TensorSpec("y", "float32", ("n", 10)), TensorSpec("z", "float32", ("k",)))
    assert BoundModel(None, inputs, outputs, "cpu").output_shapes(((2, 3), (2, 7))) == ((2, 10), (7,))


def test_one_slot_for_each_set_of_shapes_and_the_latest_stay(twice: BoundModel) -> None:
    slots = Slots(twice, recording=False)
    first = slots.get(((1, 4),))
    assert slots.get(((1, 4),)) is first
    for batch in range(2, MAX_UNRECORDED_SLOTS + 1):
        slots.get(((batch, 4),))
        slots.get(((1, 4),))
    second = slots.get(((2, 4),))
    slots.get(((MAX_UNRECORDED_SLOTS + 1, 4),))
    assert slots.get(((1, 4),)) is first
    assert slots.get(((2, 4),)) is second
    assert len(slots._by_shapes) == MAX_UNRECORDED_SLOTS
    assert {slot.record for slot in slots._by_shapes.values()} == {None}


def test_all_that_the_benchmark_times_is_recorded(twice: BoundModel) -> None:
    slots = Slots(twice, recording=True)
    slots.get(((2, 4),))
    bound = [slots.make(((2, 4),)) for _ in range(2 * ROTATION)]  # by the host's clock, and by the device's
    assert None not in {slot.record for slot in bound}


def test_recorded_runs_are_bounded_and_keep_their_tensors(twice: BoundModel) -> None:
    slots = Slots(twice, recording=True)
    recorded = [slots.get(((batch, 4),)) for batch in range(1, MAX_RECORDINGS + 1)]
    assert [slot.record for slot in recorded] == list(range(MAX_RECORDINGS))  # no number is given twice
    for batch in range(MAX_RECORDINGS + 1, MAX_RECORDINGS + 3 * MAX_UNRECORDED_SLOTS):
        assert slots.get(((batch, 4),)).record is None
    assert [slots.get(((batch, 4),)) for batch in range(1, MAX_RECORDINGS + 1)] == recorded
    assert len(slots._by_shapes) == MAX_RECORDINGS + MAX_UNRECORDED_SLOTS
    assert slots.make(((1, 4),)).record is None
