"""The rule about constant sequences, on what `python -m experiments.tasks constant --suite=offline` has measured."""

from pathlib import Path

import pytest

from mlagent_jax.controls.constant_gains import CONSTANT_LIMIT, read_constant_gains
from mlagent_jax.controls.operation_gains import digest
from mlagent_jax.tasks.suites import OFFLINE
from mlagent_jax.tasks.task_file import read_task_file

ROOT = Path(__file__).parents[2]
FOUND = read_constant_gains(ROOT / "tasks" / "constant.json")
RENEW = "`python -m experiments.tasks constant --suite=offline` renews tasks/constant.json"


@pytest.mark.parametrize("name", OFFLINE)
def test_the_measured_scripts_are_those_of_today(name):
    starter = (ROOT / "tasks" / name / "train.py").read_text()
    assert FOUND.scripts[name] == digest(starter, FOUND.config.numbers), RENEW


def test_the_best_constant_sequence_of_held_in_brings_little_on_held_out():
    files = {name: read_task_file(name, ROOT / "tasks") for name in OFFLINE}
    m_best = {name: task.m_best for name, task in files.items()}
    by_split = {
        split: [name for name, task in files.items() if task.split == split]
        for split in ("held_in", "held_out")
    }
    assert max(FOUND.mean_shares(m_best, by_split["held_out"])) < CONSTANT_LIMIT, RENEW
    assert min(FOUND.mean_shares(m_best, by_split["held_in"])) > CONSTANT_LIMIT, "it was chosen for these"
