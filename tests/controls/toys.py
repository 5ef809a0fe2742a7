"""Tasks whose scripts are not run: what a pipeline scores follows from its choices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fakes import make_task

from mlagent_jax.environment.mdp import Environment, EpisodeLimits
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.grading.grade import Graded
from mlagent_jax.pipelines.operations import catalogue
from mlagent_jax.pipelines.pipeline import EVERY, Choice, Facts, Pipeline
from mlagent_jax.pipelines.reading import read
from mlagent_jax.pipelines.rendering import render
from mlagent_jax.sandbox.interface import Result, Status

TABLE = Pipeline(
    Facts("table", "A toy", "mae", "y"), Choice("tree", (("max_depth", 4),)), rows=200, columns=EVERY
)
IMAGE = Pipeline(
    Facts("image", "A toy", "accuracy", "label", array="images", scale=16),
    Choice("tree", (("max_depth", 4),)),
    rows=200,
    views=(Choice("pixels"),),
)
Quality = Callable[[Pipeline], float | None]


def operations(*names):
    return [catalogue()[name] for name in names]


def toy(folder, name="toy", pipeline=TABLE, **changes):
    """A task for which 0 is the best error and the starter has 100, or 1 the best accuracy and the starter 0."""
    fields = {"metric": pipeline.facts.metric, "m_best": 0.0 if pipeline.facts.metric == "mae" else 1.0}
    fields["kind"] = "tabular regression" if pipeline.facts.kind == "table" else "image classification"
    return make_task(folder, name, **{**fields, "starter": render(pipeline), **changes})


@dataclass
class PipelineSandbox:
    """qualities: by task, from a pipeline to the share of the way to m_best, None if its script fails."""

    qualities: Mapping[str, Quality]
    stop_after: int | None = None
    ran: list[tuple[str, str]] = field(default_factory=list)
    name = "pipelines"
    isolated = True

    def __post_init__(self):
        self._lock = threading.Lock()

    def identity(self):
        return {}

    def check(self, limits): ...

    def run(self, job):
        task, text = job.data_dir.parent.name, job.files[job.script].decode()
        with self._lock:
            if len(self.ran) == self.stop_after:
                raise KeyboardInterrupt
            self.ran.append((task, text))
        quality = self.qualities[task](read(text))
        if quality is None:
            return Result(Status.FAILED, 1, output="ValueError: no.\n", files=job.files)
        printed = f"validation: {quality:.4f}\n"
        files = {**job.files, "submission.csv": f"{quality}".encode()}
        return Result(Status.OK, 0, output=printed, wall_seconds=1.0, files=files)

    def release(self, lease): ...

    def close(self): ...


def grader(task, submission):
    """The private score is a little worse than the public one."""
    quality = float(submission)
    score = 100.0 * (1 - quality) if task.metric == "mae" else quality
    return Graded(score, score + (1.0 if task.metric == "mae" else -0.01))


def environment(folder, task, sandbox, coder, steps=15):
    store = SnapshotStore(folder / "snapshots")
    return Environment(task, sandbox, store, coder, grader, EpisodeLimits(steps=steps))
