"""Exploration: a diverse pool of one-line ideas for each held-in task."""

from __future__ import annotations

import json
from typing import Any

from experiments.experiment import Experiment
from experiments.stages.stage import run_on_main
from mlagent_jax.exploration.embedding import TfidfEmbedder
from mlagent_jax.exploration.pool import build_pool
from mlagent_jax.files import write_atomically

STAGE = "ideas"


def run(experiment: Experiment) -> None:
    run_on_main(STAGE, experiment, _write_pools)


def _write_pools(experiment: Experiment) -> dict[str, Any]:
    kept = 0
    for task in experiment.held_in:
        pool = build_pool(
            task, experiment.idea_writer, TfidfEmbedder(), experiment.settings.ideas, experiment.settings.seed
        )
        write_atomically(
            experiment.workdir.ideas / f"{task.name}.json", json.dumps(pool.to_json(), indent=2) + "\n"
        )
        kept += sum(len(ideas) for ideas in pool.kept.values())
    return {"pools": len(experiment.held_in), "ideas": kept}
