"""The bandit: its regression, what it finds out on problems with a known answer, and its episodes."""

import numpy as np
import pytest
from toys import IMAGE, TABLE, PipelineSandbox, environment, grader, operations, toy

from mlagent_jax.agent.coder import ScriptedCoder
from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.controls.bandit import BanditPolicy
from mlagent_jax.controls.bandit_learning import BanditConfig, learn_bandit
from mlagent_jax.controls.candidates import candidates_of
from mlagent_jax.controls.context import FEATURES, context_of
from mlagent_jax.controls.executions import Executions
from mlagent_jax.controls.linucb import LinUCB
from mlagent_jax.environment.tools import EDIT, EXECUTE
from mlagent_jax.errors import UserError
from mlagent_jax.pipelines.operations import catalogue
from mlagent_jax.rewards import RewardConfig


def test_its_weights_are_those_of_a_ridge_regression():
    rng = np.random.default_rng(0)
    contexts, rewards = rng.normal(size=(30, 4)), rng.normal(size=30)
    bandit = LinUCB(2, 4, alpha=1.0, ridge=0.5)
    for context, reward in zip(contexts, rewards, strict=True):
        bandit.update(1, context, reward)
    expected = np.linalg.solve(0.5 * np.eye(4) + contexts.T @ contexts, contexts.T @ rewards)
    np.testing.assert_allclose(bandit.weights, [np.zeros(4), expected], atol=1e-12)
    assert bandit.pulls.tolist() == [0, 30]


def test_its_bounds_are_those_of_the_paper():
    """An arm with a lower mean is chosen for its uncertainty, up to the alpha at which the two are level."""
    context = np.array([1.0, 0.0])
    for alpha, chosen in ((0.9, 0), (1.1, 1)):
        bandit = LinUCB(2, 2, alpha, ridge=1.0)
        for _ in range(3):
            bandit.update(0, context, 2 / 3)  # mean 1/2, deviation 1/2; that of the other arm: 0 and 1
        assert bandit.choose(context, [0, 1], np.random.default_rng(0)) == chosen


def test_it_recovers_the_best_arm_of_each_context():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(5, 3))
    contexts = np.eye(3)
    bandit = LinUCB(5, 3, alpha=1.0, ridge=1.0)
    chosen = []
    for pull in range(600):
        context = contexts[pull % 3]
        arm = bandit.choose(context, range(5), rng)
        bandit.update(arm, context, truth[arm] @ context + rng.normal(0, 0.3))
        chosen.append(arm)
    best = (truth @ contexts.T).argmax(0)
    assert ((bandit.weights @ contexts.T).argmax(0) == best).all()
    assert np.mean(np.array(chosen[-300:]).reshape(-1, 3) == best) > 0.8


def test_a_context_tells_apart_what_an_operation_changes():
    base = TABLE
    seen = {context_of(base).tobytes()}
    for name in (
        "rows.all",
        "columns.numeric",
        "scaling.standard",
        "gaps.median",
        "target.logarithm",
        "refit.none",
    ):
        changed = catalogue()[name](base, next(catalogue()[name].param_grid()))
        vector = context_of(changed)
        assert vector.shape == (len(FEATURES),) and np.linalg.norm(vector) == pytest.approx(1)
        seen.add(vector.tobytes())
    assert len(seen) == 7


NAMES = ("rows.all", "scaling.standard", "scaling.range", "refit.none", "size.double", "estimator.forest")


def table(p):
    """Standardizing helps, but a forest then fails; doubling a tree's size does not apply."""
    if p.scaling is not None and p.estimator.name == "forest":
        return None
    return (
        0.1 * (p.rows is None)
        + 0.4 * (p.scaling is not None and p.scaling.name == "standard")
        - 0.1 * (not p.refit)
    )


def image(p):
    return 0.1 * (p.rows is None) + 0.4 * (p.estimator.name == "forest") - 0.3 * (p.scaling is not None)


def learnt(tmp_path, pulls=240, **changes):
    tasks = [toy(tmp_path, "rows"), toy(tmp_path, "pictures", IMAGE)]
    sandbox = PipelineSandbox({"rows": table, "pictures": image})
    executions, candidates = Executions(sandbox, grader, 2), candidates_of(operations(*NAMES))
    config = BanditConfig(pulls=pulls, **changes)
    found = learn_bandit(tasks, executions, candidates, RewardConfig(), config, 5, seed=0)
    return tasks, sandbox, candidates, found


def test_it_learns_which_operation_is_best_for_which_kind_of_data(tmp_path):
    tasks, sandbox, candidates, found = learnt(tmp_path)
    assert sum(found.pulls.values()) == 240
    assert found.executions == len(sandbox.ran) == len(set(sandbox.ran))
    policy = BanditPolicy(candidates, found.weights, steps=6)
    environments = {task.name: environment(tmp_path, task, sandbox, ScriptedCoder(), 6) for task in tasks}
    with EnvRunner(environments, RewardConfig()) as env_runner:
        requests = [EpisodeRequest(task.name, 0, 0) for task in tasks]
        played = {t.task: t for t in run_episodes(policy, requests, env_runner)}
    first = {
        name: {step.action.arguments["edit_instruction"] for step in trajectory.steps[:2]}
        for name, trajectory in played.items()
    }
    (all_rows,) = candidates_of(operations("rows.all"))
    assert all(all_rows.instruction in said for said in first.values())
    assert "Standardize" in " ".join(first["rows"]) and "forest" in " ".join(first["pictures"])
    assert played["rows"].public_score == pytest.approx(50) and played[
        "pictures"
    ].public_score == pytest.approx(0.5)
    for trajectory in played.values():
        assert len(trajectory.steps) == 6
        asked = [
            (s.action.arguments["script_name"], s.action.arguments["edit_instruction"])
            for s in trajectory.steps[:5]
            if s.action.tool == EDIT
        ]
        assert len(set(asked)) == len(asked)  # nothing is tried twice on the same script
        assert {script for script, _ in asked[2:]} == {trajectory.steps[1].action.arguments["save_name"]}
        assert trajectory.steps[-1].action.tool == EXECUTE  # a worse submission stood


def test_the_same_arguments_learn_the_same(tmp_path):
    (*_, one), (*_, two) = learnt(tmp_path / "a", 40), learnt(tmp_path / "b", 40)
    assert one.pulls == two.pulls
    assert all((one.weights[name] == two.weights[name]).all() for name in one.weights)


def test_what_it_cannot_learn_on(tmp_path):
    executions = Executions(PipelineSandbox({"odd": table}), grader)
    with pytest.raises(UserError, match="the agent 'bandit' works on pipelines, but the starter of task odd"):
        learn_bandit(
            [toy(tmp_path, "odd", starter="print(1)")], executions, [], RewardConfig(), BanditConfig(1), 5, 0
        )
