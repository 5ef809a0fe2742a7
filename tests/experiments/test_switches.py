"""Each switch of a configuration is tried by what it does: in the messages, rewards and episodes of a small run."""

from __future__ import annotations

import json

import pytest
import tiny
from scripted import run_stages, scripted

from experiments.stages.ppo import expert_rewards
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import messages, observation
from mlagent_jax.agent.response import ACTION_FIELDS, ALL_FIELDS
from mlagent_jax.agent.trajectory_log import read_trajectories
from mlagent_jax.environment.state import Outcome
from mlagent_jax.evaluation.read_run import read_run

WITHOUT_MODEL = ("starter", "random", "expert")
SMALL = {"tasks.micro": True, "collect.episodes_per_task": 12, "evaluate.episodes": 4}


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Trajectories of the expert (stage collect) and of the agents without a model (evaluate), by changed settings."""
    made = {}

    def collect(**changes):
        key = json.dumps(changes, sort_keys=True)
        if key not in made:
            folder = tmp_path_factory.mktemp("run")
            changes = {**SMALL, "evaluate.agents": WITHOUT_MODEL, **changes}
            with scripted(tiny.get_config(), folder, **changes) as experiment:
                run_stages(experiment, ("ideas", "collect", "evaluate"))
                expert = list(read_trajectories(experiment.workdir.expert_trajectories))
                evaluated = list(read_trajectories(experiment.workdir.evaluation_trajectories))
                made[key] = experiment, expert, evaluated
        return made[key]

    return collect


def steps(trajectories):
    return [step for trajectory in trajectories for step in trajectory.steps]


def rewards(trajectories, outcome):
    return {round(step.reward, 6) for step in steps(trajectories) if step.outcome is outcome}


M_BEST = {"digits8": (0.994, max), "hotel_rates": (14.11, min)}


def gains(trajectories, baseline="best"):
    """(gain, reward) of every edit that ran, in units of the way to m_best: over the best score so far, or the last."""
    found = []
    for trajectory in trajectories:
        m_best, better = M_BEST[trajectory.task]
        best = trajectory.m_init_public
        for step in trajectory.steps:
            if step.outcome is Outcome.SUCCESS:
                gain = step.m_after - (best if baseline == "best" else step.m_before)
                found.append((gain / (m_best - trajectory.m_init_public), step.reward))
            best = better(best, step.m_after)
    return found


@pytest.mark.parametrize("style", ["compact", "full"])
@pytest.mark.parametrize("thought", [True, False])
def test_thought_decides_what_every_scripted_agent_says_and_is_told(collected, thought, style):
    experiment, expert, evaluated = collected(**{"prompt.thought": thought, "prompt.style": style})
    labels = ALL_FIELDS if thought else ACTION_FIELDS
    for agent in WITHOUT_MODEL:
        of_agent = [t for t in (*expert, *evaluated) if t.agent == agent]
        said = steps(of_agent)
        assert len(of_agent) >= (2 if agent == "starter" else 4)  # the starter's episodes are all alike
        malformed = [step for step in said if step.outcome is Outcome.MALFORMED]
        slips = 0.1 if agent == "expert" else 0.0  # the expert makes mistakes on purpose, four in a hundred
        assert len(malformed) <= slips * len(said)
        for step in said:
            lines = [line.partition(":")[0] for line in step.response.splitlines()]
            assert tuple(lines) == labels
    # And it is not malformed for want of fields, which no slip does.
    assert not any("lines must start with" in step.feedback for step in steps([*expert, *evaluated]))
    task = experiment.held_in[0]
    system = messages(experiment.settings.prompt, Situation(task, ()))[0].content
    assert all((label in system) == (label in labels) for label in ("Reflection", "Fact Check"))


def test_a_style_decides_what_is_shown(collected):
    lengths = {}
    for style in ("compact", "full"):
        experiment, expert, _ = collected(**{"prompt.thought": True, "prompt.style": style})
        chat = messages(experiment.settings.prompt, Situation(experiment.held_in[0], expert[0].steps))
        lengths[style] = len(chat[0].content), len(chat[1].content)
    assert lengths["full"][0] > 5 * lengths["compact"][0] and lengths["full"][1] > 2 * lengths["compact"][1]


def test_observations_are_as_long_as_the_setting_says(collected):
    seen = {}
    for characters in (80, 400):
        experiment, expert, _ = collected(**{"prompt.observation_chars": characters})
        shown = [observation(experiment.settings.prompt, step) for step in steps(expert)]
        seen[characters] = max(map(len, shown))
    assert seen[80] <= 80 < seen[400] <= 400


def test_the_prompt_tells_the_true_number_of_steps_and_episodes_have_no_more(collected):
    experiment, expert, evaluated = collected(**{"episode.steps": 4, "prompt.style": "full"})
    assert max(len(t.steps) for t in (*expert, *evaluated)) == 4
    assert any(t.ended == "step_limit" for t in evaluated)
    system = messages(experiment.settings.prompt, Situation(experiment.held_in[0], ()))[0].content
    assert "You have 4 actions." in system


def test_the_seconds_of_an_episode_are_spent_by_its_scripts(collected):
    _, short, _ = collected(**{"episode.seconds": 2.0})
    _, usual, _ = collected()
    assert any(t.ended == "time_limit" for t in short) and not any(t.ended == "time_limit" for t in usual)


def test_the_linear_reward(collected):
    experiment, expert, evaluated = collected()
    low = experiment.settings.reward.low
    every = [*expert, *evaluated]
    assert rewards(every, Outcome.ERROR) == {-1.0} == rewards(every, Outcome.MALFORMED)
    assert rewards(every, Outcome.CORNER) == {0.0} == rewards(every, Outcome.NEUTRAL)
    found = gains(every)
    assert len(found) > 20 and len({reward for _, reward in found}) > 10
    assert all(reward == pytest.approx(min(max(gain, low), 1)) for gain, reward in found)


def test_what_a_gain_of_an_episode_is_measured_over(collected):
    experiment, expert, evaluated = collected(**{"reward.episode_baseline": "previous"})
    low = experiment.settings.reward.low
    every = [*expert, *evaluated]
    found = gains(every, "previous")
    assert all(reward == pytest.approx(min(max(gain, low), 1)) for gain, reward in found)
    assert any(
        over_last > over_best for (over_last, _), (over_best, _) in zip(found, gains(every), strict=True)
    )


def test_the_sigmoid_reward(collected):
    _, expert, evaluated = collected(**{"reward.form": "sigmoid"})
    every = [*expert, *evaluated]
    assert rewards(every, Outcome.ERROR) == {0.0} and rewards(every, Outcome.CORNER) == {0.5}
    assert all((reward > 0.5) == (gain > 0) for gain, reward in gains(every) if gain)


def test_without_performance_only_the_sign_of_a_gain_counts(collected):
    _, expert, evaluated = collected(**{"reward.performance": False})
    found = gains([*expert, *evaluated])
    assert {reward for _, reward in found} == {-1.0, 1.0} | (
        {0.0} if any(gain == 0 for gain, _ in found) else set()
    )
    assert all(reward == (gain > 0) - (gain < 0) for gain, reward in found)


def test_without_format_nothing_malformed_or_failed_is_punished(collected):
    _, expert, evaluated = collected(**{"reward.format": False})
    every = [*expert, *evaluated]
    assert rewards(every, Outcome.ERROR) == {0.0} == rewards(every, Outcome.MALFORMED)


def test_without_corner_cases_they_are_errors(collected):
    _, expert, evaluated = collected(**{"reward.corner": False})
    assert rewards([*expert, *evaluated], Outcome.CORNER) == {-1.0}


def test_the_range_of_the_linear_reward(collected):
    _, expert, evaluated = collected(**{"reward.low": -0.25, "reward.high": 0.125})
    found = [reward for _, reward in gains([*expert, *evaluated])]
    assert min(found) == -0.25 and max(found) == 0.125


def test_without_the_ml_specific_reward_only_a_better_score_is_one(collected):
    _, expert, evaluated = collected(**{"reward.ml_specific": False})
    every = [*expert, *evaluated]
    for outcome in (Outcome.ERROR, Outcome.CORNER, Outcome.NEUTRAL, Outcome.MALFORMED):
        assert rewards(every, outcome) == {0.0}
    assert {reward for _, reward in gains(every)} == {0.0, 1.0}
    assert all(reward == (gain > 0) for gain, reward in gains(every))


def test_rewards_do_not_change_what_the_expert_does(collected):
    _, usual, _ = collected()
    _, other, _ = collected(**{"reward.ml_specific": False})
    said = [
        sorted((t.index, tuple(step.response for step in t.steps)) for t in run) for run in (usual, other)
    ]
    assert said[0] == said[1]


def test_counts_of_collection_and_evaluation(collected):
    _, expert, evaluated = collected(**{"collect.episodes_per_task": 3, "evaluate.episodes": 2})
    assert [(t.task, t.agent) for t in expert] == [("digits8", "expert")] * 3
    counts = {(t.task, t.agent): 0 for t in evaluated}
    for trajectory in evaluated:
        counts[trajectory.task, trajectory.agent] += 1
    alike = ("starter",)  # one of its episodes says all
    assert counts == {
        (task, agent): 1 if agent in alike else 2
        for task in ("digits8", "hotel_rates")
        for agent in WITHOUT_MODEL
    }


def test_stages_work_on_tasks_of_their_own(collected):
    _, _, usual = collected()
    changes = {"tasks.held_in": ("digits8", "hotel_rates"), "tasks.held_out": (), "tasks.sft": ("digits8",)}
    experiment, expert, evaluated = collected(**changes, **{"tasks.evaluate": ("hotel_rates",)})
    assert {t.task for t in expert} == {"digits8", "hotel_rates"}
    for stage, tasks in (("sft", {"digits8"}), ("rl", {"digits8", "hotel_rates"})):
        assert {t.task for t in experiment.expert_trajectories("sft", stage)} == tasks
    assert {t.task for t in evaluated} == {"hotel_rates"}
    # Its episodes have the seeds that they have among other tasks.
    seeds = {(t.agent, t.index): t.seed for t in usual if t.task == "hotel_rates"}
    assert {(t.agent, t.index): t.seed for t in evaluated} == seeds

    changes = {
        "tasks.held_in": ("digits8", "hotel_rates"),
        "tasks.held_out": (),
        "tasks.collect": ("digits8",),
    }
    experiment, expert, _ = collected(**changes)
    assert {t.task for t in expert} == {"digits8"}
    assert [path.stem for path in experiment.workdir.ideas.glob("*.json") if path.stem != "done"] == [
        "digits8"
    ]


@pytest.mark.parametrize("form", ["linear", "sigmoid"])
@pytest.mark.parametrize("baseline", ["best", "previous"])
def test_rewards_of_collected_actions_are_the_same_computed_anew(collected, baseline, form):
    """So collected episodes serve a run with another form of reward."""
    changes = {"reward.episode_baseline": baseline, "reward.form": form, "rl.rollouts": "episodes"}
    experiment, expert, _ = collected(**changes)
    for trajectory in expert:
        assert expert_rewards(experiment, trajectory) == [step.reward for step in trajectory.steps]


@pytest.mark.parametrize("batch", [1, 5])
def test_the_batch_of_collection_changes_no_episode(collected, batch):
    _, usual, _ = collected()
    _, other, _ = collected(**{"collect.batch": batch})
    said = [
        sorted((t.index, tuple(step.response for step in t.steps)) for t in run) for run in (usual, other)
    ]
    assert said[0] == said[1]


def test_a_seed_changes_ideas_and_episodes(collected):
    first, usual, _ = collected()
    second, other, _ = collected(seed=1)
    said = [sorted(tuple(step.response for step in t.steps) for t in run) for run in (usual, other)]
    assert said[0] != said[1]
    assert (first.workdir.ideas / "digits8.json").read_text() != (
        second.workdir.ideas / "digits8.json"
    ).read_text()


@pytest.mark.parametrize(
    ("changes", "axes", "kept"),
    [({}, 3, 4), ({"ideas.keep": 2}, 3, 2), ({"ideas.version": "v1", "ideas.keep": 6}, 1, 6)],
)
def test_the_pool_of_ideas(collected, changes, axes, kept):
    experiment, expert, _ = collected(**changes)
    pool = json.loads((experiment.workdir.ideas / "digits8.json").read_text())
    assert [len(ideas) for ideas in pool["kept"].values()] == [kept] * axes
    primed = {idea for trajectory in expert for idea in trajectory.ideas}
    assert primed and primed <= {idea for ideas in pool["kept"].values() for idea in ideas}


def test_agents_are_those_that_are_named(collected):
    experiment, _, evaluated = collected(**{"evaluate.agents": ("random",)})
    assert {t.agent for t in evaluated} == {"random"}
    scores = read_run(experiment.workdir.root).scores
    assert {row["agent"] for row in scores["per_task"]} == {"random"}
