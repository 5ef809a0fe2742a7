"""The rule about single operations, on what `python -m experiments.tasks gains --suite=offline` has measured."""

from pathlib import Path

import pytest

from mlagent_jax.controls.operation_gains import digest, read_gains, shares, strong
from mlagent_jax.tasks.suites import OFFLINE
from mlagent_jax.tasks.task_file import read_task_file

ROOT = Path(__file__).parents[2]
NUMBERS, GAINS = read_gains(ROOT / "tasks" / "gains.json")


@pytest.mark.parametrize("name", OFFLINE)
def test_the_measured_scripts_are_those_of_today(name):
    starter = (ROOT / "tasks" / name / "train.py").read_text()
    renew = f"`python -m experiments.tasks gains {name}` renews tasks/gains.json"
    assert GAINS[name].scripts == digest(starter, NUMBERS), renew


def test_no_operation_is_strong_on_many_tasks():
    by_task = {name: shares(GAINS[name], read_task_file(name, ROOT / "tasks").m_best) for name in OFFLINE}
    assert max(share for brought in by_task.values() for share in brought.values()) > 0.4, (
        "the data say something"
    )
    assert strong(by_task) == {}
