"""What every stage does around its work: skip what is finished, say what it took, let processes meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from experiments.experiment import Experiment
from mlagent_jax.parallel import distributed

Work = Callable[[Experiment], Mapping[str, Any]]


def run_on_main(name: str, experiment: Experiment, work: Work) -> None:
    """A stage that only the first process does; the others wait for it."""
    distributed.on_main(lambda: _run(name, experiment, work))


def run_on_all(name: str, experiment: Experiment, work: Work) -> None:
    """A stage that all processes do together."""
    if distributed.broadcast(experiment.workdir.is_done(name)):
        logging.info("Stage %s is finished already.", name)
        return
    _run(name, experiment, work)
    distributed.barrier(f"stage {name}")


def _run(name: str, experiment: Experiment, work: Work) -> None:
    """`work` returns a summary, stored as the stage's mark of completion."""
    if experiment.workdir.is_done(name):
        logging.info("Stage %s is finished already.", name)
        return
    logging.info("Stage %s begins.", name)
    began = time.monotonic()
    summary = dict(work(experiment))
    seconds = round(time.monotonic() - began, 1)
    if distributed.is_main():
        experiment.workdir.mark_done(name, summary | {"seconds": seconds})
    shown = ", ".join(f"{key} {value}" for key, value in summary.items())
    logging.info("Stage %s is done in %.0f s: %s", name, seconds, shown)
