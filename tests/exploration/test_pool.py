"""Idea pools, draws from them, and the plan of the expert's episodes."""

import json
from collections import Counter

import numpy as np
import pytest
from fakes import make_task

from mlagent_jax.errors import UserError
from mlagent_jax.exploration.collection import plan_episodes
from mlagent_jax.exploration.diversity import farthest_point
from mlagent_jax.exploration.embedding import TfidfEmbedder
from mlagent_jax.exploration.ideas import AXES, IdeaError, ScriptedIdeaWriter
from mlagent_jax.exploration.pool import IdeaPool, PoolConfig, build_pool, draw
from mlagent_jax.pipelines.instructions import axis_of, lines

V1 = PoolConfig("v1", candidates=100, keep=10)
V2 = PoolConfig("v2", candidates=40, keep=4)


class FixedWriter:
    name = "fixed"

    def __init__(self, lines):
        self.lines = lines

    def write(self, task, axis, count):
        return [f"{line} {axis or 'any'}" for line in self.lines][:count]


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path)


def build(task, config, seed=0):
    return build_pool(task, ScriptedIdeaWriter(seed), TfidfEmbedder(), config, seed)


def test_v1_keeps_ten_of_a_hundred(task):
    pool = build(task, V1)
    assert [len(ideas) for ideas in pool.candidates.values()] == [100]
    assert [len(set(ideas)) for ideas in pool.kept.values()] == [10]
    assert set(pool.kept["all"]) < set(pool.candidates["all"])


def test_v2_keeps_k_on_each_axis_by_farthest_point_sampling(task):
    pool = build(task, V2)
    assert set(pool.kept) == set(AXES)
    for axis in AXES:
        lines = pool.candidates[axis]
        kept = [lines.index(idea) for idea in pool.kept[axis]]
        assert kept == farthest_point(TfidfEmbedder().embed(lines), 4, start=kept[0])


def test_pools_are_fixed_by_their_seed(task):
    assert build(task, V2, 1) == build(task, V2, 1)
    assert build(task, V2, 1) != build(task, V2, 2)


@pytest.mark.parametrize("config", [V1, V2])
def test_a_pool_comes_back_from_json(task, config):
    pool = build(task, config)
    assert IdeaPool.from_json(json.loads(json.dumps(pool.to_json()))) == pool


def test_another_schema_is_refused(task):
    record = build(task, V2).to_json() | {"schema": 99}
    with pytest.raises(ValueError, match="schema 99"):
        IdeaPool.from_json(record)


def test_repeated_ideas_count_once(task):
    writer = FixedWriter(["same", "same", "other"])
    with pytest.raises(IdeaError, match="2 distinct ideas on axis 'data'"):
        build_pool(task, writer, TfidfEmbedder(), PoolConfig("v2", 3, 3), 0)


def test_a_kind_without_ideas_is_named(tmp_path):
    with pytest.raises(IdeaError, match="sound something"):
        build(make_task(tmp_path, kind="sound something"), V2)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"version": "v3"}, "ideas.version is 'v3', but must be one of v1, v2"),
        ({"keep": 0}, "ideas.keep is 0, but must be a whole number of at least 1"),
        ({"candidates": 3, "keep": 4}, "ideas.keep is 4, but must be at most ideas.candidates, 3"),
    ],
)
def test_bad_settings(fields, said):
    with pytest.raises(UserError, match=said):
        PoolConfig(**fields)


def test_scripted_ideas_are_of_their_axis_and_in_wordings_that_may_be_taught(task):
    writer = ScriptedIdeaWriter(0)
    for axis in (*AXES, None):
        ideas = writer.write(task, axis, 10_000)
        assert set(ideas) == set(lines("table", "regression", axis)) and len(ideas) > 40
        assert not set(ideas) & set(lines("table", "regression", held_out=True))
        assert axis is None or {axis_of(idea) for idea in ideas} == {axis}


def test_v1_draws_one_to_three_distinct_ideas(task):
    pool, rng = build(task, V1), np.random.default_rng(0)
    draws = [draw(pool, rng) for _ in range(600)]
    counts = Counter(map(len, draws))
    assert set(counts) == {1, 2, 3} and min(counts.values()) > 150
    assert all(len(set(ideas)) == len(ideas) and set(ideas) <= set(pool.kept["all"]) for ideas in draws)


def test_v2_draws_from_distinct_axes_in_any_order(task):
    pool, rng = build(task, V2), np.random.default_rng(0)
    axis_of = {idea: axis for axis, ideas in pool.kept.items() for idea in ideas}
    draws = [[axis_of[idea] for idea in draw(pool, rng)] for _ in range(900)]
    assert all(len(set(axes)) == len(axes) for axes in draws)
    counts = Counter(map(len, draws))
    assert set(counts) == {1, 2, 3} and min(counts.values()) > 230
    assert set(Counter(tuple(axes) for axes in draws if len(axes) == 3)) == {
        (a, b, c) for a in AXES for b in AXES for c in AXES if len({a, b, c}) == 3
    }
    assert len({idea for _ in range(200) for idea in draw(pool, rng)}) == 12


def test_a_larger_plan_starts_with_a_smaller_one(tmp_path):
    tasks = [make_task(tmp_path, name) for name in ("a", "b")]
    pools = {task.name: build(task, V2) for task in tasks}
    plan = plan_episodes(tasks, pools, 5, seed=3)
    assert plan[:4] == plan_episodes(tasks, pools, 2, seed=3)
    assert len({(request.task, request.index) for request in plan}) == 10
    assert len({request.seed for request in plan}) == 10
    assert plan != plan_episodes(tasks, pools, 5, seed=4)


def test_a_task_without_a_pool(task):
    with pytest.raises(IdeaError, match="no idea pool for task toy"):
        plan_episodes([task], {}, 1, 0)
