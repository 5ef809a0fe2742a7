"""The evaluation of a trained agent: at the temperature that suits it best, and in its variants."""

from __future__ import annotations

import json

from absl import logging

from experiments.experiment import Experiment
from experiments.settings import TRAINED, EvaluateSettings
from experiments.stages.episodes import (
    SEED_OF_VALIDATION,
    episode_requests,
    evaluation_requests,
    run_missing,
)
from mlagent_jax.agent.policy import Policy
from mlagent_jax.agent.reworded import RewordedPolicy
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.evaluation.numbers import format_gain
from mlagent_jax.evaluation.read_run import read_json
from mlagent_jax.evaluation.scores import default_pairs
from mlagent_jax.evaluation.temperatures import choose
from mlagent_jax.files import write_atomically

STAGE = "evaluate"


def run(experiment: Experiment, agent: str) -> list[Trajectory]:
    """Its episodes and those of its variants, on the main process; the engine holds the agent's weights."""
    settings = experiment.settings
    temperature = _temperature(experiment, agent)
    count = settings.evaluate.episodes if temperature else 1
    plans: list[tuple[Policy, int]] = [(experiment.policy(agent, temperature), count)]
    if "greedy" in settings.evaluate.variants:
        plans.append((experiment.policy(f"{agent}_greedy", 0.0), 1))
    if "reworded" in settings.evaluate.variants:
        name = f"{agent}_reworded"
        reworded = RewordedPolicy(experiment.policy(name, temperature))
        plans.append((reworded, count))
    return run_missing(
        STAGE,
        experiment,
        experiment.workdir.evaluation_trajectories,
        [(policy, evaluation_requests(experiment, episodes)) for policy, episodes in plans],
        batch=settings.sampling.batch,
    )


def with_one_outcome(experiment: Experiment) -> list[str]:
    """Agents that always take the most likely token, whose episodes of a task are all alike."""
    settings = experiment.settings.evaluate
    chosen = read_json(experiment.workdir.temperatures) or {}
    temperatures = {agent: chosen.get(agent, {}).get("chosen", settings.temperature) for agent in TRAINED}
    cold = [agent for agent, temperature in temperatures.items() if not temperature]
    return [*(f"{agent}_greedy" for agent in TRAINED), *cold, *(f"{agent}_reworded" for agent in cold)]


def pairs(settings: EvaluateSettings) -> list[tuple[str, str]]:
    """(agent, baseline) whose difference is computed: of all agents, and of each variant and its own agent."""
    variants = [
        (variant, agent)
        for agent in settings.agents
        for variant in settings.all_agents
        if variant.startswith(f"{agent}_") and variant not in settings.agents
    ]
    return default_pairs(settings.agents) + variants


def _temperature(experiment: Experiment, agent: str) -> float:
    """The one of `config.evaluate.temperatures` that does best on the validation tasks; stored once chosen."""
    settings, path = experiment.settings.evaluate, experiment.workdir.temperatures
    if not settings.temperatures:
        return settings.temperature
    choices = read_json(path) or {}
    if agent not in choices:
        choices[agent] = choose(
            experiment.validation,
            {
                temperature: _validate(experiment, agent, temperature)
                for temperature in sorted(settings.temperatures)
            },
        )
        write_atomically(path, json.dumps(choices, indent=1, allow_nan=False) + "\n")
        logging.info(
            "%s is evaluated at temperature %g. Mean normalised public gain on %s: %s",
            agent,
            choices[agent]["chosen"],
            ", ".join(task.name for task in experiment.validation),
            ", ".join(
                f"{format_gain(row['gain'])} at {row['temperature']:g}" for row in choices[agent]["tried"]
            ),
        )
    return float(choices[agent]["chosen"])


def _validate(experiment: Experiment, agent: str, temperature: float) -> list[Trajectory]:
    """Its episodes on the validation tasks, in a file of their own, so that they never count in a score."""
    settings = experiment.settings
    episodes = settings.evaluate.validation_episodes if temperature else 1
    requests = episode_requests(settings.seed, experiment.validation, episodes, first=SEED_OF_VALIDATION)
    return run_missing(
        STAGE,
        experiment,
        experiment.workdir.validation_trajectories,
        [(experiment.policy(f"{agent}@{temperature:g}", temperature), requests)],
        batch=settings.sampling.batch,
    )
