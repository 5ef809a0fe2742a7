"""The random baseline: plausible, varied and determined by seed and step."""

from collections import Counter

from fakes import make_task

from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.random_policy import RandomPolicy
from mlagent_jax.agent.response import parse
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import EDIT, TOOLS, check
from mlagent_jax.pipelines.instructions import lines


def respond(situations, **options):
    return [response.text for response in RandomPolicy(**options).respond(situations)]


def test_all_tools_about_equally_often_and_always_allowed(tmp_path):
    task = make_task(tmp_path)
    actions = [parse(text) for text in respond([Situation(task, (), (), seed) for seed in range(1400)])]
    assert all(isinstance(action, Action) and check(action) is None for action in actions)
    counts = Counter(action.tool for action in actions)
    assert set(counts) == set(TOOLS) and min(counts.values()) > 140


def test_instructions_are_taught_ones_for_the_kind(tmp_path):
    task = make_task(tmp_path)
    actions = [parse(text) for text in respond([Situation(task, (), (), seed) for seed in range(2000)])]
    told = {action.arguments["edit_instruction"] for action in actions if action.tool == EDIT}
    assert told <= set(lines("table", "regression")) and len(told) > 80


def test_a_response_depends_on_its_own_seed_and_step_alone(tmp_path):
    task = make_task(tmp_path)
    situations = [Situation(task, (), (), seed) for seed in range(30)]
    alone = [respond([situation])[0] for situation in situations]
    assert respond(situations) == alone and len(set(alone)) > 10


def test_without_thoughts_and_on_an_unknown_kind(tmp_path):
    task = make_task(tmp_path, kind="sound something")
    for text in respond([Situation(task, (), (), seed) for seed in range(20)], thought=False):
        assert isinstance(parse(text, thought=False), Action)
