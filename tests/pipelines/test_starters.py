"""Starters of the suite: pipelines that differ, and rules that hold without running them."""

import re
from itertools import product
from pathlib import Path

import pytest
from weaknesses import weaknesses

from mlagent_jax.agent.coder import ScriptedCoder
from mlagent_jax.pipelines.metrics import problem_type
from mlagent_jax.pipelines.pipeline import kind_of, problem_type_of
from mlagent_jax.pipelines.reading import read
from mlagent_jax.tasks.suites import suite_names
from mlagent_jax.tasks.task_file import read_task_file

TASKS_DIR = Path(__file__).parents[2] / "tasks"
SUITE = suite_names("offline", TASKS_DIR)
STARTERS = {name: (TASKS_DIR / name / "train.py").read_text() for name in (*SUITE, "foods", "diamonds")}
FOUND = {name: weaknesses(read(text)) for name, text in STARTERS.items()}
HELD_IN, HELD_OUT = SUITE[:9], SUITE[9:]


@pytest.mark.parametrize("name", STARTERS)
def test_a_starter_is_a_pipeline_of_its_tasks_facts(name):
    task, facts = read_task_file(name, TASKS_DIR), read(STARTERS[name]).facts
    assert (facts.kind, facts.metric) == (kind_of(task.kind), task.metric)
    assert facts.target == (task.target_array or task.target_columns[0])
    assert facts.identity == task.id_column and facts.title == f"{task.title}."
    assert problem_type_of(task.kind) == problem_type(task.metric)
    assert (
        len(ScriptedCoder().understand(STARTERS[name], "what is the model?")) < 240
    )  # as much as a small model is shown


@pytest.mark.parametrize("name", STARTERS)
def test_a_starter_has_two_or_three_weaknesses_of_different_kinds(name):
    assert 2 <= len(FOUND[name]) <= 3


def test_no_held_out_starter_has_the_weaknesses_of_a_held_in_one():
    for one, other in product(HELD_IN, HELD_OUT):
        assert not FOUND[one] <= FOUND[other], (one, other)


def test_no_weakness_stands_in_more_than_a_third_of_the_suite():
    every = {weakness for found in FOUND.values() for weakness in found}
    assert len(every) >= 12
    for weakness in every:
        assert sum(weakness in FOUND[name] for name in SUITE) <= len(SUITE) / 3, weakness


def test_starters_differ():
    models = [read(STARTERS[name]).estimator.name for name in SUITE]
    assert len(set(models)) >= 8 and max(map(models.count, models)) <= len(SUITE) / 4


@pytest.mark.parametrize("name", STARTERS)
def test_brief_and_description_name_no_weakness(name):
    """Nothing of the script: no model, no number of rows it reads, no word for what it leaves out."""
    task = read_task_file(name, TASKS_DIR)
    text = f"{task.brief} {task.description}".lower()
    words = (
        r"train\.py|starter|ridge|forest|boost|logistic|baseline|unscaled|regulari[sz]|refit|only \d+ rows"
    )
    assert not re.search(words, text)


def test_digits_stand_on_one_side():
    assert ("digits8" in HELD_IN) == ("mnist5k" in HELD_IN)
