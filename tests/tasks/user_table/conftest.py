"""Makes a task from the content of a CSV file."""

import pytest
from user_tables import Made

from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.user_table.new_task import NewTask, write_new_task


@pytest.fixture
def make(tmp_path):
    """Makes a task from the bytes or text of a CSV file."""

    def made(content, target="y", metric="accuracy", name="rows.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        folder = tmp_path / f"task{len(list(tmp_path.iterdir()))}"
        notes = write_new_task(NewTask(folder, path, target, metric, **options))
        prepare_task(folder, tmp_path, tmp_path / "data")
        return Made(load_task(folder, tmp_path, tmp_path / "data"), notes)

    return made
