"""Exploration: a diverse pool of one-line ideas for each held-in task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl import logging

from experiments.experiment import Experiment
from experiments.stages.stage import run_on_main
from mlagent_jax.exploration.embedding import TfidfEmbedder
from mlagent_jax.exploration.ideas import IdeaError
from mlagent_jax.exploration.pool import IdeaPool, build_pool
from mlagent_jax.files import write_atomically

STAGE = "ideas"


def run(experiment: Experiment) -> None:
    run_on_main(STAGE, experiment, _write_pools)


def _write_pools(experiment: Experiment) -> dict[str, Any]:
    """Existing pools are kept: with a language model as writer they cost money."""
    kept = 0
    for task in experiment.tasks_of("collect"):
        path = experiment.workdir.idea_pool(task.name)
        if path.exists():
            pool = read_pool(path)
            logging.info("The ideas for %s exist already.", task.name)
        else:
            writer, settings = experiment.idea_writer, experiment.settings
            pool = build_pool(task, writer, TfidfEmbedder(), settings.ideas, settings.seed)
            write_atomically(path, json.dumps(pool.to_json(), indent=2) + "\n")
        kept += sum(len(ideas) for ideas in pool.kept.values())
    return {"pools": len(experiment.tasks_of("collect")), "ideas": kept}


def read_pool(path: Path) -> IdeaPool:
    """Raises IdeaError for a damaged file."""
    try:
        return IdeaPool.from_json(json.loads(path.read_text()))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise IdeaError(
            f"the idea pool {path} is damaged ({error!r}); delete it, and it is built again"
        ) from error
