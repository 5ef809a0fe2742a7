"""Controls of the evaluation: agents without a model, some of which choose or learn on the held-in tasks before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from absl import logging

from experiments.experiment import Experiment
from experiments.settings import CONTROLS, Settings
from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.policy import Policy
from mlagent_jax.controls.bandit import BanditPolicy
from mlagent_jax.controls.bandit_learning import BanditConfig, LearntBandit, learn_bandit
from mlagent_jax.controls.candidates import candidates_of, starter_pipeline
from mlagent_jax.controls.constant import ConstantPolicy
from mlagent_jax.controls.forward_selection import Selection, select_sequence
from mlagent_jax.controls.pipeline_search import check_search
from mlagent_jax.controls.records import stored_bandit, stored_selection
from mlagent_jax.controls.search import SEARCHES, SearchPolicy
from mlagent_jax.pipelines.operations import catalogue


def check(settings: Settings, starters: Mapping[str, str]) -> None:
    """starters: by the names of all tasks. Raises UserError if a control that is to be evaluated cannot work."""
    held_in = [Path(name).name for name in settings.tasks.held_in]
    for agent in settings.evaluate.agents:
        if agent in SEARCHES:
            check_search(SEARCHES[agent])
        if agent in CONTROLS:
            for name in starters if agent in SEARCHES else held_in:
                starter_pipeline(name, starters[name], agent)


def policy(experiment: Experiment, agent: str) -> Policy:
    """The policy of one of `CONTROLS`, which chooses or learns first unless an earlier start stored what it did."""
    return _MAKERS[agent](experiment)


def env_runner(experiment: Experiment, agent: str) -> EnvRunner:
    """The one in which an agent of the evaluation acts: a search dictates scripts, all others ask the run's coder."""
    return experiment.verbatim_env_runner if agent in SEARCHES else experiment.env_runner


def preparation(experiment: Experiment) -> dict[str, Any]:
    """For the stage's summary: the executions that agents chose or learnt by, beside those of their episodes."""
    agents = experiment.settings.evaluate.agents
    found: dict[str, Callable[[Experiment], Selection | LearntBandit]] = {
        "constant": _selection,
        "bandit": _bandit,
    }
    return {
        f"{agent}_prepared_by": prepare(experiment).executions
        for agent, prepare in found.items()
        if agent in agents
    }


def _selection(experiment: Experiment) -> Selection:
    def select() -> Selection:
        config = experiment.settings.evaluate.constant
        made = select_sequence(
            experiment.held_in, experiment.executions("constant"), catalogue().values(), config
        )
        logging.info("The best constant sequence is: %s", "; ".join(made.sequence) or "nothing helps")
        return made

    return stored_selection(experiment.workdir.control("constant"), select)


def _bandit(experiment: Experiment) -> LearntBandit:
    settings = experiment.settings

    def learn() -> LearntBandit:
        return learn_bandit(
            experiment.held_in,
            experiment.executions("bandit"),
            candidates_of(catalogue().values()),
            settings.reward,
            _with_pulls(experiment, settings.evaluate.bandit),
            max(1, settings.episode.steps - 1),
            settings.seed,
        )

    return stored_bandit(experiment.workdir.control("bandit"), learn)


def _with_pulls(experiment: Experiment, config: BanditConfig) -> BanditConfig:
    ppo = experiment.settings.ppo
    return config if config.pulls else dataclasses.replace(config, pulls=ppo.updates * ppo.batch_size)


def _constant_policy(experiment: Experiment) -> Policy:
    return ConstantPolicy(_selection(experiment).sequence, experiment.settings.prompt.thought)


def _bandit_policy(experiment: Experiment) -> Policy:
    settings, learnt = experiment.settings, _bandit(experiment)
    candidates = candidates_of(catalogue().values())
    return BanditPolicy(candidates, learnt.weights, settings.episode.steps, settings.prompt.thought)


def _search_policy(agent: str, experiment: Experiment) -> Policy:
    return SearchPolicy(agent, experiment.settings.episode.steps, experiment.settings.prompt.thought)


_MAKERS: dict[str, Callable[[Experiment], Policy]] = {
    "constant": _constant_policy,
    "bandit": _bandit_policy,
    **{agent: partial(_search_policy, agent) for agent in SEARCHES},
}
