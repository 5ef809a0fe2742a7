"""What a sandbox adds to a script's own work: warm workers beside a cold `python script.py`, in one run.

    python -m experiments.benchmarks.sandbox --repeats=20

The script imports pandas and scikit-learn, fits a small model, and prints how long that took after its
imports. Overhead is all the rest of the time until its result is in hand: starting, importing, isolating,
ending, reading its files. Bar: at most 0.1 s in a warm sandbox.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from absl import app, flags

from mlagent_jax.sandbox.bubblewrap import BubblewrapSandbox
from mlagent_jax.sandbox.interface import Job, Sandbox, Status
from mlagent_jax.sandbox.pool import ENVIRONMENT
from mlagent_jax.sandbox.process import ProcessSandbox

REPEATS = flags.DEFINE_integer("repeats", 20, "Runs of each kind; they take turns.", lower_bound=1)
BAR_SECONDS = 0.1

SCRIPT = """
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
import time

begun = time.perf_counter()
train = pd.read_csv("data/train.csv")
X, y = train.drop(columns="y"), train["y"]
X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, random_state=0)
for model in (LogisticRegression(), RandomForestClassifier(10, random_state=0)):
    model.fit(X_fit, y_fit)
    print(model.score(X_valid, y_valid))
pd.DataFrame({"id": range(len(X)), "y": model.predict(X)}).to_csv("submission.csv", index=False)
print("own work:", time.perf_counter() - begun)
"""

Run = Callable[[], str]


def main(argv: Sequence[str]) -> None:
    del argv
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = _write_data(root)
        cold = _cold_run(root / "cold", data)
        public = root / "public"
        sandboxes: tuple[Sandbox, ...] = (
            stack.enter_context(BubblewrapSandbox(public, workers=1)),
            stack.enter_context(ProcessSandbox(public, workers=1)),
        )
        runs = {f"warm, {sandbox.name}": _warm_run(sandbox, data) for sandbox in sandboxes}
        runs["cold, python script.py"] = cold
        starts = {name: _timed(run) for name, run in runs.items()}  # workers import; files come into memory
        overheads: dict[str, list[float]] = {name: [] for name in runs}
        work: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(REPEATS.value):
            for name, run in runs.items():
                total, own = _timed(run)
                overheads[name].append(total - own)
                work[name].append(own)
    print(f"{REPEATS.value} runs of each kind, seconds; load average {os.getloadavg()[0]:.1f}")
    print(f"{'':<26}{'overhead: median':>18}{'least':>8}{'most':>8}{'own work':>10}{'first run':>11}")
    for name, values in overheads.items():
        print(
            f"{name:<26}{statistics.median(values):>18.3f}{min(values):>8.3f}{max(values):>8.3f}"
            f"{statistics.median(work[name]):>10.3f}{starts[name][0]:>11.2f}"
        )
    warm = statistics.median(overheads["warm, bubblewrap"])
    print(f"bar: {BAR_SECONDS} s above the script's own work in a warm sandbox: {warm:.3f} s,", end=" ")
    print("met" if warm <= BAR_SECONDS else "MISSED")


def _write_data(root: Path) -> Path:
    import numpy as np
    import pandas as pd

    data = root / "public" / "task"
    data.mkdir(parents=True)
    (root / "public").chmod(0o755)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(1000, 8)), columns=[f"x{i}" for i in range(8)])
    table["y"] = (table["x0"] * table["x1"] > 0).astype(int)
    table.to_csv(data / "train.csv", index=False)
    return data


def _warm_run(sandbox: Sandbox, data: Path) -> Run:
    job = Job({"train.py": SCRIPT.encode()}, "train.py", data, "benchmark")

    def run() -> str:
        result = sandbox.run(job)
        if result.status is not Status.OK:
            raise RuntimeError(f"the script ended with {result.status}: {result.error or result.output}")
        return result.output

    return run


def _cold_run(folder: Path, data: Path) -> Run:
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "data").symlink_to(data)
    environment = {**ENVIRONMENT, "PATH": os.environ["PATH"]}
    command = [sys.executable, "train.py"]

    def run() -> str:
        return subprocess.run(
            command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    return run


def _timed(run: Run) -> tuple[float, float]:
    """Seconds that a run took, and seconds that its script says it worked for."""
    begun = time.perf_counter()
    output = run()
    total = time.perf_counter() - begun
    said = re.search(r"own work: ([\d.]+)", output)
    assert said is not None, output
    return total, float(said[1])


if __name__ == "__main__":
    app.run(main)
