"""The MDP with this host's sandbox and cached results: a repeated episode gives the same transitions."""

import pytest
from fakes import edit, execute, final, make_environment, make_task, script

from mlagent_jax.environment.state import Outcome
from mlagent_jax.sandbox.cache import CachedSandbox
from mlagent_jax.sandbox.interface import Limits
from mlagent_jax.sandbox.open import open_sandbox

ACTIONS = [
    edit(
        script(12.0, "import pandas as pd", 'rows = pd.read_csv("data/train.csv")', "print(len(rows))"),
        "a.py",
    ),
    edit("open('/etc/passwd', 'a')\nraise KeyError('area')\n", "b.py"),
    edit("while True: pass\n", "c.py"),
    execute("a.py"),
    final(),
]


def play(environment):
    state, transitions = environment.initial_state(), []
    for action in ACTIONS:
        transitions.append(environment.step(state, action))
        state = transitions[-1].state
    return transitions


@pytest.mark.slow
def test_an_episode_in_the_sandbox_and_again_from_the_cache(tmp_path):
    task = make_task(tmp_path / "data", limits=Limits(wall_seconds=5.0, cpu_seconds=2))
    with CachedSandbox(
        open_sandbox("auto", 1, tmp_path / "data", True, True), tmp_path / "executions.sqlite"
    ) as sandbox:
        first = play(make_environment(tmp_path / "one", sandbox, task))
        again = play(make_environment(tmp_path / "two", sandbox, task))
    assert [t.outcome for t in first] == [
        Outcome.SUCCESS, Outcome.ERROR, Outcome.CORNER, Outcome.NEUTRAL, Outcome.NEUTRAL,
    ]  # fmt: skip
    assert first[0].output.startswith("8\n") and first[0].feedback.endswith("better than 5.0000.")
    assert first[2].status == "timeout" and first[2].feedback.endswith("stopped after 2 s.")
    assert 2.0 <= first[2].state.seconds < 60.0
    assert [t.state for t in again] == [t.state for t in first]
    assert all(t.cached for t in again if t.status)
