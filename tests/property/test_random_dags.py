"""Random DAGs: gradients equal to backprop's to the bit, and a graph that keeps what it promises.

Runs 500 examples; ``PCGRAPH_PROPERTY_EXAMPLES=10000`` for the long run.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings, target

import pcgraph
from pcgraph.graph import PCGraph, Ref, Role
from tests.equality import assert_exact
from tests.property.dags import Recipe, recipes

LONG = "PCGRAPH_PROPERTY_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("PCGRAPH_PROPERTY_EXAMPLES", "500"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not LONG,  # the suite is the same at every run; the long run looks for news
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@SETTINGS
@given(recipes())
def test_learns_exactly_like_backprop(recipe: Recipe) -> None:
    for dtype in (torch.float32, torch.float64):
        assert_exact(recipe.case(), dtype)


@settings(SETTINGS, max_examples=EXAMPLES // 5)
@given(recipes())
def test_learns_the_same_with_low_memory(recipe: Recipe) -> None:
    assert_exact(recipe.case(), compiler=functools.partial(pcgraph.compile, memory="low"))


@settings(SETTINGS, max_examples=EXAMPLES // 5)
@given(recipes())
def test_learns_the_same_with_value_nodes_on_layers(recipe: Recipe) -> None:
    for dtype in (torch.float32, torch.float64):
        assert_exact(recipe.case(), dtype, compiler=functools.partial(pcgraph.compile, value_nodes="layers"))


@SETTINGS
@given(recipes())
def test_graph_is_sound_and_levelled(recipe: Recipe) -> None:
    model, inputs, _ = recipe.case().build()
    graph = pcgraph.compile(model, example_inputs=inputs).graph
    graph.verify()
    longest = naive_depths(graph)
    assert dict(graph.depth) == longest
    levelled = graph.levelled()
    levelled.verify()
    assert_no_long_edge(levelled)
    assert {name: d for name, d in levelled.depth.items() if name in graph.vertices} == longest
    added = len(levelled) - len(graph)
    assert added == sum(graph.relays(name) for name in graph.vertices)
    target(float(graph.steps))


def naive_depths(graph: PCGraph) -> dict[str, int]:
    """Longest path to an output by plain recursion over uses, for every vertex that has one."""
    children: dict[str, set[str]] = {name: set() for name in graph.vertices}
    for vertex in graph.vertices.values():
        for ref in vertex.operands:
            if graph.carries_error(ref):
                children[ref.vertex].add(vertex.name)
    outputs = {ref.vertex for ref in graph.outputs if graph.carries_error(ref)}
    known: dict[str, int | None] = {}

    def longest(name: str) -> int | None:
        if name not in known:
            below = [d for child in children[name] if (d := longest(child)) is not None]
            known[name] = 1 + max(below) if below else 0 if name in outputs else None
        return known[name]

    return {name: d for name in graph.vertices if (d := longest(name)) is not None}


def assert_no_long_edge(graph: PCGraph) -> None:
    """Every edge that carries an error spans one level. Parameters do not move, so theirs may be long."""
    for vertex in graph.vertices.values():
        if vertex.name not in graph.depth:
            continue
        for ref in vertex.operands:
            if graph.carries_error(ref) and graph[ref.vertex].role is not Role.PARAMETER:
                span = graph.depth[ref.vertex] - graph.depth[vertex.name]
                assert span == 1, f"{Ref(*ref)} -> %{vertex.name} spans {span} levels\n{graph}"
