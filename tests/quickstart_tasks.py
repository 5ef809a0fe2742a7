"""The quickstart's tasks, whose data are fetched always, and their starters."""

from pathlib import Path

from experiments.configs.quickstart import get_config

_TASKS = get_config().tasks
QUICKSTART: tuple[str, ...] = (*_TASKS.held_in, *_TASKS.held_out)
STARTERS = {
    name: (Path(__file__).parents[1] / "tasks" / name / "train.py").read_text() for name in QUICKSTART
}
