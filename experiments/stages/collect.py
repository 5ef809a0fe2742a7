"""Exploration: expert episodes on the held-in tasks, primed with ideas, and a tokenizer trained on them."""

from __future__ import annotations

from typing import Any

from experiments.experiment import Experiment
from experiments.stages import ideas
from experiments.stages.episodes import run_missing
from experiments.stages.stage import run_on_main
from mlagent_jax.agent.prompt import TASK_MESSAGE
from mlagent_jax.exploration.collection import plan_episodes
from mlagent_jax.text.chat import tokenizer_texts
from mlagent_jax.text.tokenizer import train_sentencepiece

STAGE = "collect"


def run(experiment: Experiment) -> None:
    run_on_main(STAGE, experiment, _collect)


def _collect(experiment: Experiment) -> dict[str, Any]:
    settings, workdir = experiment.settings, experiment.workdir
    pools, tasks = {}, experiment.tasks_of("collect")
    for task in tasks:
        path = workdir.idea_pool(task.name)
        workdir.require(STAGE, path, made_by=ideas.STAGE)
        pools[task.name] = ideas.read_pool(path)
    requests = plan_episodes(tasks, pools, settings.collect.episodes_per_task, settings.seed)
    trajectories = run_missing(
        STAGE,
        experiment,
        workdir.expert_trajectories,
        [(experiment.expert, requests)],
        settings.collect.batch,
    )
    whole = [trajectory for trajectory in trajectories if not trajectory.is_masked]
    if not settings.model.pretrained:
        chats = experiment.chats(whole)
        for trajectory in whole:
            chats += (paraphrase[TASK_MESSAGE + 1 :] for paraphrase in experiment.paraphrases(trajectory))
        # Each text counts once, so that what every episode on a task begins with is no long token of its own.
        texts = dict.fromkeys(tokenizer_texts(chats))
        train_sentencepiece(texts, settings.model.vocab_size, workdir.tokenizer)
    return {
        "trajectories": len(trajectories),
        "masked": len(trajectories) - len(whole),
        "steps": sum(len(trajectory.steps) for trajectory in whole),
    } | experiment.execution_counts()
