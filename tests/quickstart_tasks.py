"""The quickstart's tasks, whose data are fetched always."""

from experiments.configs.quickstart import get_config

_TASKS = get_config().tasks
QUICKSTART: tuple[str, ...] = (*_TASKS.held_in, *_TASKS.held_out)
