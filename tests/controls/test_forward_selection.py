"""The choice of a constant sequence: against all sequences of a tiny space, and against its own episodes."""

from contextlib import closing
from itertools import permutations

import pytest
from toys import PipelineSandbox, environment, grader, operations, toy

from mlagent_jax.agent.coder import ScriptedCoder
from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.controls.candidates import candidates_of
from mlagent_jax.controls.constant import ConstantPolicy
from mlagent_jax.controls.executions import Executions
from mlagent_jax.controls.forward_selection import ConstantConfig, played, select_sequence
from mlagent_jax.environment.state import Outcome
from mlagent_jax.environment.tools import EDIT, FINAL_ANSWER
from mlagent_jax.errors import UserError
from mlagent_jax.pipelines.pipeline import PipelineError
from mlagent_jax.pipelines.reading import read
from mlagent_jax.rewards import RewardConfig
from mlagent_jax.sandbox.cache import CachedSandbox
from mlagent_jax.sandbox.interface import Result, Status

NAMES = ("rows.all", "scaling.standard", "depth.limit", "gaps.median", "ensemble.bagged", "refit.none")


def qualities():
    """Each choice adds to a task's quality on its own, so greedy selection is optimal; bagging fails on one task."""

    def first(p):
        if p.ensemble is not None:
            return None
        depth = p.estimator.get("max_depth")
        return (
            0.3 * (p.rows is None)
            + 0.1 * (p.scaling is not None)
            - 0.2 * (p.gaps is not None)
            + 0.02 * (depth == 8)
        )

    def second(p):
        return (
            0.1 * (p.rows is None)
            - 0.05 * (p.scaling is not None)
            + 0.1 * (p.gaps is not None)
            + 0.3 * (p.ensemble is not None)
            - 0.1 * (not p.refit)
        )

    return {"one": first, "two": second}


def tasks_of(tmp_path):
    return [toy(tmp_path, "one"), toy(tmp_path, "two")]


def mean_gain_of(sequence, tasks, made):
    """What a sequence brings, worked out without the module."""
    total = 0.0
    for task in tasks:
        pipeline, quality = read(task.starter), 0.0
        for candidate in sequence:
            try:
                changed = candidate.operation(pipeline, candidate.values)
            except PipelineError:
                continue
            reached = made[task.name](changed)
            if reached is not None:
                pipeline, quality = changed, reached
        total += quality
    return total / len(tasks)


def test_no_sequence_of_the_space_is_better(tmp_path):
    tasks, made = tasks_of(tmp_path), qualities()
    candidates = candidates_of(operations(*NAMES))
    assert len(candidates) > len(NAMES)  # some with several numbers
    every = [sequence for length in range(4) for sequence in permutations(candidates, length)]
    expected = max(mean_gain_of(sequence, tasks, made) for sequence in every)
    chosen = select_sequence(
        tasks, Executions(PipelineSandbox(made), grader, 2), operations(*NAMES), ConstantConfig(length=3)
    )
    assert len(chosen.sequence) == 3
    assert sum(chosen.gains.values()) / 2 == pytest.approx(expected)


def test_its_episodes_get_what_was_promised(tmp_path):
    tasks, sandbox = tasks_of(tmp_path), PipelineSandbox(qualities())
    chosen = select_sequence(tasks, Executions(sandbox, grader), operations(*NAMES))
    environments = {task.name: environment(tmp_path, task, sandbox, ScriptedCoder()) for task in tasks}
    with EnvRunner(environments, RewardConfig()) as env_runner:
        requests = [EpisodeRequest(task.name, 0, 0) for task in tasks]
        episodes = {t.task: t for t in run_episodes(ConstantPolicy(chosen.sequence), requests, env_runner)}
    for name, gain in chosen.gains.items():
        trajectory = episodes[name]
        assert (100 - trajectory.public_score) / 100 == pytest.approx(gain)
        tools = [step.action.tool for step in trajectory.steps]
        assert tools == [EDIT] * len(chosen.sequence) + [FINAL_ANSWER]
    assert Outcome.ERROR in {
        step.outcome for step in episodes["one"].steps
    }  # bagging failed there, and was undone


def shares(sequence, tasks, executions):
    found = played(sequence, tasks, executions)
    return {task.name: found[task.name].shares(task.m_best) for task in tasks}


def test_played_on_other_tasks_it_brings_what_each_step_brings(tmp_path):
    tasks, executions = tasks_of(tmp_path), Executions(PipelineSandbox(qualities()), grader)
    said = [
        candidates_of(operations(name))[0].instruction
        for name in ("ensemble.bagged", "rows.all", "gaps.median")
    ]
    gains = shares(said, tasks, executions)
    assert {name: public for name, (public, _) in gains.items()} == pytest.approx({"one": 0.1, "two": 0.5})
    chosen = select_sequence(tasks, executions, operations(*NAMES))
    assert {
        name: public for name, (public, _) in shares(chosen.sequence, tasks, executions).items()
    } == pytest.approx(chosen.gains)
    # The private score is a constant worse than the public one here, so its gains are the same.
    assert all(private == pytest.approx(public) for public, private in gains.values())
    assert shares([], tasks, executions) == {"one": (0.0, 0.0), "two": (0.0, 0.0)}


def test_each_operation_alone(tmp_path):
    tasks, sandbox = tasks_of(tmp_path), PipelineSandbox(qualities())
    executions = Executions(sandbox, grader)
    chosen = select_sequence(tasks, executions, operations(*NAMES), ConstantConfig(length=1, numbers="first"))
    trials = {trial.operation: trial for trial in chosen.rounds[0]}
    assert trials["rows.all"].gains == pytest.approx({"one": 0.3, "two": 0.1})
    assert trials["ensemble.bagged"].gains == pytest.approx({"one": 0.0, "two": 0.3})  # fails on one of them
    assert trials["depth.limit"].executions == 0  # the starters have this depth already
    assert executions.count == len(set(sandbox.ran)) == len(sandbox.ran) == 2 + 2 * 5


def test_ties_go_to_the_first_and_nothing_is_chosen_that_does_not_help(tmp_path):
    task = toy(tmp_path)

    def level(p):
        return 0.5 * (p.scaling is not None) - 0.1 * (not p.refit)

    executions = Executions(PipelineSandbox({"toy": level}), grader)
    given = operations("refit.none", "scaling.range", "scaling.standard")
    chosen = select_sequence([task], executions, given)
    assert [trial.mean_gain for trial in chosen.rounds[0]] == pytest.approx([-0.1, 0.5, 0.5])
    assert chosen.sequence == (candidates_of(operations("scaling.range"))[0].instruction,)
    assert len(chosen.rounds) == 2  # the second found nothing
    assert select_sequence([task], executions, operations("refit.none")).sequence == ()


def test_a_shortlist_keeps_the_best_alone(tmp_path):
    tasks, made = tasks_of(tmp_path), qualities()
    config = ConstantConfig(length=3, shortlist=2)
    chosen = select_sequence(tasks, Executions(PipelineSandbox(made), grader), operations(*NAMES), config)
    assert [len(each) for each in chosen.rounds[1:]] == [2] * (len(chosen.rounds) - 1)
    assert {trial.operation for trial in chosen.rounds[1]} == {"rows.all", "ensemble.bagged"}


def test_an_interrupted_choice_pays_nothing_twice(tmp_path):
    tasks, made = tasks_of(tmp_path), qualities()
    whole = PipelineSandbox(made)
    expected = select_sequence(tasks, Executions(whole, grader), operations(*NAMES))
    first, then = PipelineSandbox(made, stop_after=7), PipelineSandbox(made)
    with closing(CachedSandbox(first, tmp_path / "store")) as sandbox, pytest.raises(KeyboardInterrupt):
        select_sequence(tasks, Executions(sandbox, grader), operations(*NAMES))
    with closing(CachedSandbox(then, tmp_path / "store")) as sandbox:
        assert select_sequence(tasks, Executions(sandbox, grader), operations(*NAMES)) == expected
    assert sorted(first.ran + then.ran) == sorted(whole.ran)


def test_what_cannot_be_chosen_on(tmp_path):
    broken = Executions(PipelineSandbox({"toy": lambda p: None}), grader)
    with pytest.raises(UserError, match="the starter of task toy gives no score"):
        select_sequence([toy(tmp_path)], broken, operations("rows.all"))
    with pytest.raises(
        UserError,
        match=r"the agent 'constant' works on pipelines, but the starter of task odd is none: .*leave",
    ):
        select_sequence([toy(tmp_path, "odd", starter="print(1)")], broken, operations("rows.all"))

    class Down(PipelineSandbox):
        def run(self, job):
            return Result(Status.SANDBOX_ERROR, error="no worker is left")

    with pytest.raises(UserError, match="sandbox failed on task two: no worker is left; start again"):
        select_sequence([toy(tmp_path, "two")], Executions(Down({}), grader), operations("rows.all"))
