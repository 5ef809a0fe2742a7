"""Gains of single operations: what is run, what is kept, and which operations are strong on too many tasks."""

import json
from dataclasses import replace

import pytest
from fakes import make_task
from text_sandbox import STARTER, TextSandbox

from mlagent_jax.controls import operation_gains
from mlagent_jax.controls.operation_gains import (
    TaskGains,
    read_gains,
    shares,
    single_gains,
    strong,
    write_gains,
)
from mlagent_jax.errors import UserError
from mlagent_jax.pipelines.operations import catalogue
from mlagent_jax.pipelines.reading import read


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path, starter=STARTER)


def test_each_operation_that_changes_the_starter_is_run_alone(task):
    sandbox = TextSandbox()
    found = single_gains(task, sandbox, "first")
    assert sandbox.ran[0] == task.starter and task.starter not in sandbox.ran[1:]
    assert {"estimator.forest", "ensemble.bagged", "refit.none"} <= found.operations.keys()
    assert "rows.all" not in found.operations, "it reads all rows already"
    assert found.operations["scaling.ranks"] is None, "its script fails"
    forest, ridge = (found.operations[f"estimator.{name}"][0] for name in ("forest", "ridge"))
    assert forest < 1 < 4 < ridge


def test_of_all_numbers_the_best_one_is_kept(task):
    first, every = (single_gains(task, TextSandbox(), numbers) for numbers in ("first", "all"))
    assert first.operations.keys() == every.operations.keys() and first.scripts != every.scripts
    pairs = [(first.operations[name], every.operations[name]) for name in first.operations]
    assert all(b[0] <= a[0] for a, b in pairs if a is not None)
    assert any(b[0] < a[0] for a, b in pairs if a is not None)


def test_a_digest_tells_of_another_starter_and_of_another_rendering(task, monkeypatch):
    digest = operation_gains.digest(STARTER, "first")
    assert digest == single_gains(task, TextSandbox(), "first").scripts
    assert operation_gains.digest(STARTER.replace("max_depth=4", "max_depth=5"), "first") != digest
    assert read(STARTER)
    monkeypatch.setattr(operation_gains, "render", lambda pipeline: "something else")
    assert operation_gains.digest(STARTER, "first") != digest


def test_an_operation_is_strong_if_it_brings_a_tenth_on_more_than_a_third_of_the_tasks():
    forest, ridge = "estimator.forest", "estimator.ridge"
    by_task = {
        "a": {forest: 0.11, ridge: 0.5},
        "b": {forest: 0.5, ridge: 0.1},
        "c": {},
    }
    assert strong(by_task) == {forest: ["a", "b"]}
    assert shares(TaskGains("", (4.0, 4.0), {forest: (3.0, 4.0), ridge: None}), 2.0) == {
        forest: 0.5,
        ridge: 0,
    }


def test_a_file_keeps_what_other_tasks_have_and_drops_other_numbers(tmp_path, task):
    path, one = tmp_path / "gains.json", single_gains(task, TextSandbox(), "first")
    write_gains(path, "first", {"b": one})
    write_gains(path, "first", {"a": replace(one, scripts="other")})
    numbers, found = read_gains(path)
    assert numbers == "first" and list(found) == ["a", "b"]
    assert found["b"].scripts == one.scripts and found["b"].operations.keys() == one.operations.keys()
    for name, scores in one.operations.items():
        assert found["b"].operations[name] == (None if scores is None else pytest.approx(scores, rel=1e-5))
    write_gains(path, "all", {"a": one})
    assert list(read_gains(path)[1]) == ["a"]
    assert json.loads(path.read_text())["numbers"] == "all"


def test_a_file_of_something_else_is_named(tmp_path):
    path = tmp_path / "gains.json"
    for text in ("", "[]", '{"tasks": {"a": {}}}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"gains\.json holds no gains"):
            read_gains(path)


def test_a_task_without_operations_gets_a_sentence(tmp_path):
    with pytest.raises(UserError, match="task toy has no operations: the script is no pipeline"):
        single_gains(make_task(tmp_path), TextSandbox(), "first")


def test_operations_have_the_ids_of_the_catalogue(task):
    assert single_gains(task, TextSandbox(), "first").operations.keys() <= catalogue().keys()
