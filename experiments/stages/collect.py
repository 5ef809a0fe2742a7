"""Exploration: expert episodes on the held-in tasks, primed with ideas, and a tokenizer for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from experiments.experiment import Experiment
from experiments.stages import ideas
from experiments.stages.episodes import run_missing
from experiments.stages.stage import run_on_main
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import messages
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.agent.trajectory_log import latest_trajectories
from mlagent_jax.exploration.collection import plan_episodes
from mlagent_jax.text.chat import Message, tokenizer_texts
from mlagent_jax.text.tokenizer import train_sentencepiece

STAGE = "collect"


def run(experiment: Experiment) -> None:
    run_on_main(STAGE, experiment, _collect)


def _collect(experiment: Experiment) -> dict[str, Any]:
    settings, workdir = experiment.settings, experiment.workdir
    pools = {}
    for task in experiment.held_in:
        path = workdir.ideas / f"{task.name}.json"
        workdir.require(STAGE, path, made_by=ideas.STAGE)
        pools[task.name] = ideas.read_pool(path)
    requests = plan_episodes(experiment.held_in, pools, settings.collect.episodes_per_task, settings.seed)
    trajectories = run_missing(
        STAGE,
        experiment,
        workdir.expert_trajectories,
        [(experiment.expert, requests)],
        settings.collect.batch,
    )
    if not settings.model.pretrained:
        train_sentencepiece(
            tokenizer_texts(chats(experiment, trajectories)), settings.model.vocab_size, workdir.tokenizer
        )
    whole = [trajectory for trajectory in trajectories if not trajectory.is_masked]
    return {
        "trajectories": len(trajectories),
        "masked": len(trajectories) - len(whole),
        "steps": sum(len(trajectory.steps) for trajectory in whole),
    } | experiment.execution_counts()


def expert_trajectories(experiment: Experiment, needed_by: str) -> list[Trajectory]:
    """In an order that does not depend on which was finished first. Raises MissingInputError."""
    path = experiment.workdir.expert_trajectories
    experiment.workdir.require(needed_by, path, made_by=STAGE)
    return sorted(
        latest_trajectories(path).values(), key=lambda trajectory: (trajectory.index, trajectory.task)
    )


def chats(experiment: Experiment, trajectories: Iterable[Trajectory]) -> list[list[Message]]:
    """Trajectories as the policy will see them: without the ideas that primed the expert."""
    tasks = {task.name: task for task in experiment.held_in}
    return [
        messages(experiment.settings.prompt, Situation(tasks[trajectory.task], trajectory.steps))
        for trajectory in trajectories
        if not trajectory.is_masked
    ]
