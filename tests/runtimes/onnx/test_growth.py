"""The reader of ONNX graphs at twice the nodes needs at most about twice the steps, also for a hostile graph."""

from __future__ import annotations

import pytest

from runtimes.onnx.graph import OnnxGraph
from runtimes.onnx.wire import Node

STEPS = 200


class CountedProducers(dict[str, Node]):
    """The producers of tensors, which count how often one is looked up."""

    def __init__(self, producers: dict[str, Node]) -> None:
        super().__init__(producers)
        self.lookups = 0

    def get(self, name: str, *_: object) -> Node | None:  # type: ignore[override]
        self.lookups += 1
        return super().get(name)


def moved(steps: int, cycle: bool) -> OnnxGraph:
    """Convolutions that all read one value behind a chain of nodes that only move values."""
    chain = [
        Node(f"move{n}", "Identity", (f"v{n - 1 if n or not cycle else steps - 1}",), (f"v{n}",)) for n in range(steps)
    ]
    readers = [Node(f"conv{n}", "Conv", (f"v{steps - 1}", "weight"), (f"y{n}",)) for n in range(steps)]
    return OnnxGraph((*chain, *readers), {"weight": "float32"})


def lookups(steps: int, cycle: bool) -> int:
    graph = moved(steps, cycle)
    counted = CountedProducers(graph.producers)
    vars(graph)["producers"] = counted
    assert len(graph.weighted) == steps
    return counted.lookups


@pytest.mark.parametrize("cycle", [False, True])
def test_a_long_chain_is_followed_once(cycle: bool) -> None:
    assert lookups(2 * STEPS, cycle) <= 2.1 * lookups(STEPS, cycle)


def test_a_long_fused_chain_is_found_in_order() -> None:
    nodes = [Node("conv", "Conv", ("input", "weight"), ("v0",))]
    nodes += [Node(f"step{n}", "Relu", (f"v{n - 1}",), (f"v{n}",)) for n in range(1, 5000)]
    assert OnnxGraph(tuple(nodes), {}).find_fused(nodes[-1]) == tuple(nodes)
