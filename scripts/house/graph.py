"""A graph maps each node to the nodes that it points at; circles and floors are read off it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

Graph = Mapping[str, frozenset[str]]


def graph_of(nodes: Iterable[str], arrows: Iterable[tuple[str, str]]) -> Graph:
    """The graph of some nodes and arrows holds no arrow from a node to itself."""
    targets: dict[str, set[str]] = {node: set() for node in nodes}
    for start, end in arrows:
        targets.setdefault(end, set())
        if start != end:
            targets.setdefault(start, set()).add(end)
    return {node: frozenset(ends) for node, ends in sorted(targets.items())}


def circles(graph: Graph) -> list[list[str]]:
    """The circles are the strongly connected components of more than one node, largest first."""
    groups = {tuple(group) for group in _components(graph).values() if len(group) > 1}
    return [list(group) for group in sorted(groups, key=lambda group: (-len(group), group))]


def shortest_circle(graph: Graph, start: str) -> list[str]:
    """The shortest way from a node back to itself begins and ends with it; it is empty if there is none."""
    ways = deque([[start]])
    reached = set[str]()
    while ways:
        way = ways.popleft()
        for end in sorted(graph[way[-1]]):
            if end == start:
                return [*way, end]
            if end not in reached:
                reached.add(end)
                ways.append([*way, end])
    return []


def floors(graph: Graph) -> dict[str, int]:
    """The floor of a node is the length of the longest path from it downwards, itself included.

    The members of a circle cannot be told apart in height: they share a floor, and it is as many floors high as they
    are many. A circle therefore never makes a house look lower than a row of its members would.
    """
    components = _components(graph)
    heights: dict[str, int] = {}

    def height(node: str) -> int:
        group = components[node]
        if group[0] not in heights:
            below = {end for member in group for end in graph[member]} - set(group)
            heights[group[0]] = len(group) + max((height(end) for end in below), default=0)
        return heights[group[0]]

    return {node: height(node) for node in graph}


def _components(graph: Graph) -> dict[str, list[str]]:
    """The strongly connected component of each node is the sorted list of its members."""
    reach = {node: _reach(graph, node) for node in graph}
    return {node: sorted({node} | {end for end in reach[node] if node in reach[end]}) for node in graph}


def _reach(graph: Graph, start: str) -> set[str]:
    reached = set[str]()
    waiting = [start]
    while waiting:
        fresh = graph[waiting.pop()] - reached
        reached |= fresh
        waiting.extend(fresh)
    return reached
