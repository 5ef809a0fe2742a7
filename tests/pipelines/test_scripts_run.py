"""Rendered scripts really run, or fail as the validity rules say: in a plain subprocess, on small data."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tiny_data import COLUMNS, FACTS, write_tiny_data

from mlagent_jax.pipelines.pipeline import KINDS, Choice, Pipeline
from mlagent_jax.pipelines.rendering import render
from mlagent_jax.pipelines.sampling import sample, suggest_at_random
from mlagent_jax.pipelines.validity import validation_errors


def outcomes(folder, kind, count, seed):
    """What the rules say of each of so many pipelines, and the error it ended with."""
    (folder / "data").mkdir()
    (folder / "scripts").mkdir()
    write_tiny_data(folder / "data", kind)
    rng = random.Random(f"{seed}/{kind}")
    expected = {}
    for number in range(count):
        pipeline = sample(rng.choice(FACTS[kind]), COLUMNS.get(kind, ()), suggest_at_random(rng))
        expected[f"{number}.py"] = validation_errors(pipeline)
        (folder / "scripts" / f"{number}.py").write_text(render(pipeline))
    ended = run(folder)
    assert ended.keys() == expected.keys()
    return {name: (expected[name], ended[name]) for name in expected}


def run(folder):
    """The error that each of the scripts in `folder` ended with, "" for none."""
    program = Path(__file__).with_name("run_scripts.py")
    done = subprocess.run(
        [sys.executable, str(program), str(folder / "scripts")],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(line) for line in done.stdout.splitlines())


def check(folder, kind, count, seed=0):
    wrong = {
        name: pair
        for name, pair in outcomes(folder, kind, count, seed).items()
        if bool(pair[0]) != bool(pair[1])
    }
    assert not wrong, "\n".join(
        f"{name}: rules {rules}, ended {error!r}" for name, (rules, error) in wrong.items()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_scripts_of_each_kind_run_or_fail_as_the_rules_say(tmp_path, kind):
    check(tmp_path, kind, 4)


def test_predicted_numbers_stay_within_the_range_of_the_known_targets(tmp_path):
    """A linear model of a logarithm answers many times the largest target for inputs beyond the known ones."""
    facts = FACTS["table"][0]
    pipeline = Pipeline(
        facts,
        Choice("ridge", (("alpha", 1e-6),)),
        rows=12,
        columns=("size", "age"),
        target=Choice("logarithm"),
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "scripts").mkdir()
    write_tiny_data(tmp_path / "data", "table")
    (tmp_path / "scripts" / "bounded.py").write_text(render(pipeline))
    run(tmp_path)
    known = pd.read_csv(tmp_path / "data" / "train.csv").head(12)["price"]
    predicted = pd.read_csv(tmp_path / "submission.csv")["price"]
    assert predicted.min() >= known.min() and predicted.max() == pytest.approx(known.max())


@pytest.mark.slow
@pytest.mark.timeout(0)  # hours on a busy machine
@pytest.mark.parametrize("kind", KINDS)
def test_five_hundred_scripts_of_each_kind_run_or_fail_as_the_rules_say(tmp_path, kind):
    check(tmp_path, kind, 500, seed=1)
