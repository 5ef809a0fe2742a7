"""What is common to all stages: finished ones are skipped, results are reported, processes are synchronised."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from experiments.experiment import Experiment
from mlagent_jax.parallel import distributed

Work = Callable[[Experiment], Mapping[str, Any]]


def run_on_main(name: str, experiment: Experiment, work: Work) -> None:
    """Runs a stage on the first process only; the others wait."""
    distributed.on_main(lambda: _run(name, experiment, work))


def run_on_all(name: str, experiment: Experiment, work: Work) -> None:
    """Runs a stage on all processes together."""
    if distributed.broadcast(experiment.workdir.is_done(name)):
        logging.info("Stage %s has finished already.", name)
        return
    _run(name, experiment, work)
    distributed.barrier(f"stage {name}")


def _run(name: str, experiment: Experiment, work: Work) -> None:
    """Stores the summary that `work` returns, which marks the stage as finished."""
    if experiment.workdir.is_done(name):
        logging.info("Stage %s has finished already.", name)
        return
    logging.info("Stage %s starts.", name)
    began = time.monotonic()
    summary = dict(work(experiment))
    seconds = round(time.monotonic() - began, 1)
    if distributed.is_main():
        experiment.workdir.mark_done(name, summary | {"seconds": seconds})
    shown = ", ".join(f"{key} {value}" for key, value in summary.items())
    logging.info("Stage %s finished in %.0f s: %s", name, seconds, shown)
