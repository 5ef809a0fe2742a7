"""Stand-ins for what an episode needs: real runs and real grading, without isolation or a model."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.response import Thoughts, render
from mlagent_jax.environment.coder import CoderError, CoderUnavailableError
from mlagent_jax.environment.mdp import Environment, EpisodeLimits
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import EDIT, EXECUTE, FINAL_ANSWER
from mlagent_jax.grading.grade import grade
from mlagent_jax.sandbox.interface import Job, Limits, Result, Status
from mlagent_jax.tasks.task import Task

IDS = range(4)
TRUTH = 10.0  # of every row, so a script that predicts c has a public and private mae of |c - 10|


def script(prediction: float, *before: str) -> str:
    """A training script that predicts the same number for every row."""
    return "\n".join(
        [
            *before,
            'with open("submission.csv", "w") as file:',
            '    file.write("id,y\\n" + "".join(f"{i},' + f"{prediction}" + '\\n" for i in range(4)))',
            f'print("validation mae: {abs(prediction - TRUTH):.4f}")',
            "",
        ]
    )


STARTER = script(15.0)


def make_task(folder: Path, name: str = "toy", **changes) -> Task:
    """A task whose starter has an mae of 5, and m_best 1."""
    public = folder / name / "public"
    public.mkdir(parents=True)
    (public / "train.csv").write_text("id,y\n" + "".join(f"{i},10\n" for i in range(8)))
    labels = folder / name / "labels.csv"
    split = {0: "public", 1: "public", 2: "private", 3: "private"}
    labels.write_text("id,y,split\n" + "".join(f"{i},{TRUTH},{split[i]}\n" for i in IDS))
    fields: dict[str, Any] = {
        "name": name,
        "title": "A toy",
        "brief": "Predict y of four rows. Metric mae.",
        "description": "Predict y, which is always ten.",
        "kind": "tabular regression",
        "split": "held_in",
        "metric": "mae",
        "id_column": "id",
        "target_columns": ("y",),
        "m_best": 1.0,
        "m_best_source": "made up",
        "starter": STARTER,
        "limits": Limits(wall_seconds=10.0),
        "show_public_score": True,
        "data_dir": public,
        "labels_path": labels,
        "data_digest": f"{folder}/{name}",
    }
    return Task(**{**fields, **changes})


class PlainSandbox:
    """Runs scripts in a bare subprocess. `plan` holds results to give instead, first to last."""

    name = "plain"
    isolated = False

    def __init__(self, plan: list[Result] | None = None, delay: float = 0.0) -> None:
        self.plan = plan or []
        self.jobs: list[Job] = []
        self.delay = delay

    def run(self, job: Job) -> Result:
        self.jobs.append(job)
        if self.plan:
            return self.plan.pop(0)
        time.sleep(self.delay)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for path, content in job.files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(content)
            done = subprocess.run(
                [sys.executable, "-SE", job.script], cwd=root, capture_output=True, text=True, timeout=30
            )
            files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        return Result(
            Status.OK if done.returncode == 0 else Status.FAILED,
            exit_code=done.returncode,
            output=done.stdout + done.stderr,
            wall_seconds=1.0,
            files=files,
        )

    def release(self, lease: str) -> None: ...

    def close(self) -> None: ...


class DictatedCoder:
    """Writes the instruction itself as the script."""

    name = "dictated"
    writes_free_code = True

    def edit(self, script: str, instruction: str) -> str:
        if instruction == "unavailable":
            raise CoderUnavailableError("the endpoint did not answer")
        if instruction == "impossible":
            raise CoderError("I cannot do that.")
        return instruction

    def understand(self, text: str, question: str) -> str:
        return f"{len(text)} characters; you asked: {question}"


def make_environment(folder: Path, sandbox=None, task: Task | None = None, **limits) -> Environment:
    return Environment(
        task or make_task(folder),
        sandbox or PlainSandbox(),
        SnapshotStore(folder / "snapshots"),
        DictatedCoder(),
        grade,
        EpisodeLimits(**limits),
    )


def edit(new: str, save_name: str = "train.py", script_name: str = "train.py") -> Action:
    return Action(EDIT, {"script_name": script_name, "edit_instruction": new, "save_name": save_name})


def execute(name: str = "train.py") -> Action:
    return Action(EXECUTE, {"script_name": name})


def final() -> Action:
    return Action(FINAL_ANSWER, {"final_answer": "done"})


def say(action: Action) -> str:
    return render(action, Thoughts("r", "p", "f", "t"))


class ListPolicy:
    """Says its lines in order, one for each step; the batches that it was asked in are kept."""

    name = "list"
    writes_free_code = True

    def __init__(self, lines: list[str], room: int = 1_000) -> None:
        self.lines = lines
        self.room = room
        self.batches: list[int] = []

    def fits(self, situation: Situation) -> bool:
        return len(situation.steps) < self.room

    def respond(self, situations) -> list[Response]:
        self.batches.append(len(situations))
        return [Response(self.lines[len(s.steps) % len(self.lines)]) for s in situations]
