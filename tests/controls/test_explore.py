"""Explorations: searches that find, executions that are paid for once, and sentences where none can begin."""

from contextlib import closing

import pytest
from fakes import make_task
from text_sandbox import FACTS, STARTER, TextSandbox

from mlagent_jax.controls.explore import explore
from mlagent_jax.controls.pipeline_search import SEARCHES, open_search
from mlagent_jax.errors import UserError
from mlagent_jax.sandbox.cache import CachedSandbox


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path, starter=STARTER)


@pytest.mark.parametrize("search", SEARCHES)
def test_it_finds_what_is_better_than_the_starter(task, search):
    sandbox = TextSandbox()
    found = explore(task, sandbox, search, 30)
    assert found.starter > 4 and found.best < 1 and "RandomForestRegressor" in found.script
    assert found.executions == 30 == len(sandbox.ran) - 1
    assert found.failed == sum("QuantileTransformer" in text for text in sandbox.ran) > 0
    assert found.skipped > 0
    assert "head(" not in "".join(sandbox.ran)


@pytest.mark.parametrize("search", SEARCHES)
def test_an_exploration_that_was_interrupted_goes_on_and_pays_nothing_twice(task, search, tmp_path):
    whole = TextSandbox()
    expected = explore(task, whole, search, 20)
    first, then = TextSandbox(stop_after=8), TextSandbox()
    with closing(CachedSandbox(first, tmp_path / "store")) as sandbox, pytest.raises(KeyboardInterrupt):
        explore(task, sandbox, search, 20)
    with closing(CachedSandbox(then, tmp_path / "store")) as sandbox:
        assert explore(task, sandbox, search, 20) == expected
    assert first.ran + then.ran == list(dict.fromkeys(whole.ran))


def test_seeds_differ():
    asked = {seed: [open_search("random", FACTS, (), seed).ask() for _ in range(3)] for seed in (0, 1)}
    assert asked[0] != asked[1]


def test_optuna_learns_where_random_search_does_not(task):
    """Of the last scripts more hold what scored best."""
    share = {}
    for search in SEARCHES:
        sandbox = TextSandbox()
        explore(task, sandbox, search, 90)
        share[search] = sum("RandomForestRegressor" in text for text in sandbox.ran[-30:])
    assert share["tpe"] > 2 * share["random"]


def test_optuna_avoids_what_fails():
    """Most of the space may be known to fail: a search that ignored it would ask for little else."""
    failures = {}
    for name in SEARCHES:
        search, failures[name] = open_search(name, FACTS, ("a", "b"), 0), 0
        for _ in range(90):
            failed = search.ask().estimator.name != "forest"
            failures[name] += failed
            search.tell(None if failed else 0.0)
    assert failures["tpe"] < 60 < 75 < failures["random"]


def test_what_cannot_be_explored(tmp_path, task):
    with pytest.raises(UserError, match="task other cannot be explored: the script is no pipeline"):
        explore(make_task(tmp_path, "other"), TextSandbox(), "random", 3)
    with pytest.raises(UserError, match="there is no search 'grid'; there are random, tpe"):
        explore(task, TextSandbox(), "grid", 3)
