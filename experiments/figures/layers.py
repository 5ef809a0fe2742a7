"""Layered drawing of a directed graph (Sugiyama, Tagawa and Toda 1981): every arrow points down, few cross."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.optimize import isotonic_regression

Graph = Mapping[str, AbstractSet[str]]
Ends = tuple[str, str]
Bend = tuple[str, str, int]  # where an arrow passes a layer
Place = str | Bend
SWEEPS = 24


@dataclass(frozen=True)
class Drawing:
    """Where everything goes.

    x: horizontal position of a box's centre, or of an arrow's bend. layer: 0 is the top.
    routes: for each arrow what it passes, from top to bottom.
    """

    x: dict[Place, float]
    layer: dict[Place, int]
    routes: dict[Ends, list[Place]]


def without_cycles(weights: Mapping[str, Mapping[str, int]]) -> tuple[dict[str, set[str]], list[Ends]]:
    """The graph without its weakest arrow of each cycle, and those arrows."""
    graph = {node: set(weights[node]) for node in weights}
    removed = []
    while cycle := _cycle(graph):
        tail, head = min(cycle, key=lambda arrow: (weights[arrow[0]][arrow[1]], arrow))
        graph[tail].discard(head)
        removed.append((tail, head))
    return graph, removed


def _cycle(graph: Graph) -> list[Ends]:
    for start in sorted(graph):
        paths: list[list[str]] = [[start]]
        seen = {start}
        while paths:
            path = paths.pop(0)
            for follower in sorted(graph[path[-1]]):
                if follower == start:
                    return list(itertools.pairwise([*path, start]))
                if follower not in seen:
                    seen.add(follower)
                    paths.append([*path, follower])
    return []


def transitive_reduction(graph: Graph) -> dict[str, set[str]]:
    """The same graph without arrows that a longer path implies."""
    below = {node: _reachable(graph, node) for node in graph}
    return {
        node: {head for head in heads if not any(head in below[other] for other in heads)}
        for node, heads in graph.items()
    }


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += graph[node]
    return found


def draw(graph: Graph, widths: Mapping[str, float], gap: float) -> Drawing:
    """Places the nodes of an acyclic graph. widths: of the nodes' boxes. gap: between neighbours in a layer."""
    layer = _layers(graph)
    routes: dict[Ends, list[Place]] = {}
    for tail in sorted(graph):
        for head in sorted(graph[tail]):
            bends: dict[Place, int] = {
                (tail, head, number): number for number in range(layer[tail] + 1, layer[head])
            }
            layer |= bends
            routes[tail, head] = [tail, *bends, head]
    links = [pair for route in routes.values() for pair in itertools.pairwise(route)]
    rows = _ordered(layer, links)
    half = {place: (widths[place] if isinstance(place, str) else gap) / 2 for place in layer}
    return Drawing(_positions(rows, links, half, gap), layer, routes)


def _layers(graph: Graph) -> dict[Place, int]:
    """Longest path from the bottom; a node that uses nothing stands right below its lowest user."""
    height: dict[str, int] = {}

    def measure(node: str) -> int:
        if node not in height:
            height[node] = 1 + max((measure(head) for head in graph[node]), default=-1)
        return height[node]

    top = max(map(measure, graph))
    for node in graph:
        users = [height[tail] for tail in graph if node in graph[tail]]
        if not graph[node] and users:
            height[node] = min(users) - 1
    return {node: top - height[node] for node in graph}


def _ordered(layer: Mapping[Place, int], links: Sequence[tuple[Place, Place]]) -> list[list[Place]]:
    """The places of each layer in the order with the fewest crossings that sweeps of barycentres find."""
    rows: list[list[Place]] = [[] for _ in range(max(layer.values()) + 1)]
    for place in sorted(layer, key=str):
        rows[layer[place]].append(place)
    above: dict[Place, list[Place]] = {place: [] for place in layer}
    below: dict[Place, list[Place]] = {place: [] for place in layer}
    for upper, lower in links:
        above[lower].append(upper)
        below[upper].append(lower)
    best, fewest = [list(row) for row in rows], _crossings(rows, below)
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        neighbours = above if downwards else below
        for row in rows if downwards else reversed(rows):
            rank = {place: number / len(each) for each in rows for number, place in enumerate(each)}
            centre = {
                place: fmean([rank[other] for other in neighbours[place]])
                if neighbours[place]
                else rank[place]
                for place in row
            }
            row.sort(key=lambda place, centre=centre: centre[place])  # type: ignore[misc]
        crossings = _crossings(rows, below)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _crossings(rows: Sequence[Sequence[Place]], below: Mapping[Place, Sequence[Place]]) -> int:
    rank = {place: number for row in rows for number, place in enumerate(row)}
    count = 0
    for row in rows:
        ends = [(rank[upper], rank[lower]) for upper in row for lower in below[upper]]
        count += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(ends, 2))
    return count


def _positions(
    rows: Sequence[Sequence[Place]],
    links: Sequence[tuple[Place, Place]],
    half: Mapping[Place, float],
    gap: float,
) -> dict[Place, float]:
    """Each place as near to the mean of its neighbours as its layer's order and widths allow."""
    x: dict[Place, float] = {}
    offsets = []
    for row in rows:
        steps = [half[left] + half[right] + gap for left, right in itertools.pairwise(row)]
        offsets.append(np.cumsum([0.0, *steps]))
        x |= {place: float(at - offsets[-1][-1] / 2) for place, at in zip(row, offsets[-1], strict=True)}
    linked: dict[Place, list[Place]] = {place: [] for row in rows for place in row}
    for upper, lower in links:
        linked[lower].append(upper)
        linked[upper].append(lower)
    for sweep in range(4 * SWEEPS):
        order = zip(rows, offsets, strict=True)
        for row, offset in order if sweep % 2 == 0 else reversed(list(order)):
            wanted = [
                fmean([x[other] for other in linked[place]]) if linked[place] else x[place] for place in row
            ]
            settled = isotonic_regression(np.array(wanted) - offset).x + offset
            x |= dict(zip(row, settled.tolist(), strict=True))
    return x
