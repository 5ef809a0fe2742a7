"""Losing a score and regaining it pays nothing over an episode, in any form of the reward."""

import dataclasses

import fakes
import pytest

from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import COPY_FILE
from mlagent_jax.errors import UserError
from mlagent_jax.rewards import RewardConfig

LINEAR = RewardConfig()
FORMS = {
    "linear": LINEAR,
    "sigmoid": RewardConfig(form="sigmoid"),
    "linear, which way only": RewardConfig(performance=False),
    "sigmoid, which way only": RewardConfig(form="sigmoid", performance=False),
    "success alone": RewardConfig(ml_specific=False),
}
KEEP_THE_STARTER = Action(COPY_FILE, {"source": "train.py", "destination": "worse.py"})
GOOD = fakes.script(11.0)  # an mae of 1, which is m_best: the whole way from the starter's 5


def again(number):
    return fakes.edit(fakes.script(11.0, f"# again {number}"))


WITH_CYCLES = [KEEP_THE_STARTER, fakes.edit(GOOD)]
for number in range(3):
    WITH_CYCLES += [fakes.execute("worse.py"), again(number)]
# The same gain, with neutral steps instead of the cycles.
WITHOUT = [KEEP_THE_STARTER, fakes.edit(GOOD), *[fakes.execute()] * 6]
# One large loss, which is clipped, and small gains, each of which would be paid in full.
GREAT_LOSS = [
    fakes.edit(GOOD),
    *(fakes.edit(fakes.script(c)) for c in (110.0, 90.0, 70.0, 50.0, 30.0)),
    again(0),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return fakes.make_environment(tmp_path_factory.mktemp("environment"))


def rewards(environment, config, actions):
    policy = fakes.ListPolicy([fakes.say(action) for action in [*actions, fakes.final()]])
    with EnvRunner({"toy": environment}, config) as env_runner:
        (episode,) = run_episodes(policy, [EpisodeRequest("toy", 0, 0)], env_runner)
    assert episode.ended == "final_answer" and episode.public_score == pytest.approx(1.0)
    return [step.reward for step in episode.steps[:-1]]


def test_a_gain_is_paid_once(environment):
    assert rewards(environment, LINEAR, WITH_CYCLES) == [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    paid_each_time = dataclasses.replace(LINEAR, episode_baseline="previous")
    assert sum(rewards(environment, paid_each_time, WITH_CYCLES)) == pytest.approx(4.0)


@pytest.mark.parametrize("form", FORMS)
def test_cycles_are_worth_no_more_than_doing_nothing(environment, form):
    assert sum(rewards(environment, FORMS[form], WITH_CYCLES)) <= sum(
        rewards(environment, FORMS[form], WITHOUT)
    )


@pytest.mark.parametrize("form", FORMS)
def test_nor_is_a_great_loss_that_small_gains_make_good(environment, form):
    nothing = [fakes.edit(GOOD), *[fakes.execute()] * 6]
    assert sum(rewards(environment, FORMS[form], GREAT_LOSS)) <= sum(
        rewards(environment, FORMS[form], nothing)
    )


def test_each_new_best_is_paid_for_what_it_adds(environment):
    steps = [fakes.edit(fakes.script(c)) for c in (13.0, 14.0, 12.0, 11.0)]  # an mae of 3, 4, 2 and 1
    assert rewards(environment, LINEAR, steps) == pytest.approx([0.5, -0.25, 0.25, 0.25])
    previous = dataclasses.replace(LINEAR, episode_baseline="previous")
    assert rewards(environment, previous, steps) == pytest.approx([0.5, -0.25, 0.5, 0.25])


def test_an_unknown_baseline_is_refused():
    with pytest.raises(UserError, match="episode_baseline is 'first', but must be one of best, previous"):
        RewardConfig(episode_baseline="first")
