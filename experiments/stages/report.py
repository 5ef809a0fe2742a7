"""The report: one HTML page of everything that the run has stored so far; it is written again each time."""

from __future__ import annotations

from absl import logging

from experiments.experiment import Experiment
from mlagent_jax.evaluation.report import write_report
from mlagent_jax.parallel import distributed

STAGE = "report"


def run(experiment: Experiment) -> None:
    def write() -> None:
        path = write_report(experiment.workdir.root, experiment.workdir.report)
        logging.info("The report is %s", path)

    distributed.on_main(write)
