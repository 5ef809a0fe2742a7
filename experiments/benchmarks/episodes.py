"""Whole episodes of the quickstart's tasks over bubblewrap and over Docker, in turns, at several batch sizes.

    launch/docker/engine.sh FOLDER python -m experiments.benchmarks.sandbox --only_episodes

The scripted expert plays them, as in stage `collect`; stage `evaluate` goes the same way. Timed is from an unopened
sandbox to the last episode: what workers and containers import is part of it. Bar: Docker takes 1.5 times as long as
bubblewrap at most.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from pathlib import Path

from experiments.configs import quickstart
from experiments.experiment import Experiment
from experiments.settings import Settings
from experiments.stages import collect, ideas
from experiments.workdir import Workdir

BATCHES = (2, 8, 32, 64)
MOST_TIMES = 1.5
_BACKENDS = ("bubblewrap", "docker")


@dataclasses.dataclass(frozen=True)
class Timing:
    """seconds of all episodes. executions: scripts that were run."""

    seconds: float
    executions: int


def measure_episodes(episodes_per_task: int) -> bool:
    """Prints a line for each batch size; whether the bar was met at all of them."""
    print(f"\n{'episodes at once':<18}{'executions':>12}{'bubblewrap':>12}{'docker':>10}{'ratio':>8}")
    is_met = True
    with tempfile.TemporaryDirectory() as folder:
        for batch in BATCHES:
            timings = {
                backend: _collect(Path(folder, f"{backend}-{batch}"), backend, batch, episodes_per_task)
                for backend in _BACKENDS
            }
            ours, docker = timings["bubblewrap"], timings["docker"]
            assert ours.executions == docker.executions, timings
            ratio = docker.seconds / ours.seconds
            is_met &= ratio <= MOST_TIMES
            print(
                f"{batch:<18}{ours.executions:>12}{ours.seconds:>10.1f} s{docker.seconds:>8.1f} s{ratio:>8.2f}"
                f"   load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    return is_met


def _collect(folder: Path, backend: str, batch: int, episodes_per_task: int) -> Timing:
    config = quickstart.get_config()
    config.sandbox.backend = backend
    config.collect.batch, config.collect.episodes_per_task = batch, episodes_per_task
    with Experiment(Settings.from_config(config), Workdir(folder)) as experiment:
        ideas.run(experiment)  # needs no sandbox; loads the tasks
        begun = time.perf_counter()
        collect.run(experiment)
        seconds = time.perf_counter() - begun
        return Timing(seconds, experiment.execution_counts()["executions"])
