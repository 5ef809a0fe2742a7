"""Which tasks each stage works on: all unless some are named, and only those that it can have."""

from __future__ import annotations

import pytest
from tiny import settings_with

from experiments.settings import SettingsError


def test_stages_have_all_tasks_unless_some_are_named():
    tasks = settings_with(**{"tasks.held_in": ("ames", "foods"), "tasks.held_out": ("tate",)}).tasks
    assert tasks.collect == tasks.sft == tasks.rl == ("ames", "foods")
    assert tasks.evaluate == ("ames", "foods", "tate")
    some = settings_with(**{"tasks.held_in": ("ames", "foods"), "tasks.collect": ("foods",)}).tasks
    assert some.sft == some.rl == ("foods",) and some.evaluate[:2] == ("ames", "foods")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"tasks.collect": ("tate",)},
            "config.tasks.collect has 'tate', which is not in config.tasks.held_in",
        ),
        (
            {"tasks.rl": ("nope",)},
            "config.tasks.rl has 'nope', which is not in config.tasks.held_in; add it there",
        ),
        (
            {"tasks.collect": ("ames",), "tasks.sft": ("foods",)},
            "config.tasks.sft has 'foods', which is not in",
        ),
        ({"tasks.evaluate": ("mnist5k",)}, "not in config.tasks.held_in or config.tasks.held_out"),
        ({"tasks.collect": ("ames",), "tasks.rl": ("foods",)}, "RL needs its episodes"),
        ({"tasks.rl": ()}, "config.tasks.rl is empty, so nothing is trained by RL; leave 'ppo' out"),
        ({"tasks.sft": ()}, "config.tasks.sft"),
    ],
)
def test_tasks_of_stages_are_among_those_that_they_come_from(changes, said):
    with pytest.raises(SettingsError) as error:
        settings_with(**{"tasks.held_in": ("ames", "foods"), "tasks.held_out": ("tate",), **changes})
    assert said in str(error.value)
