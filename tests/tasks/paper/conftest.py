"""The paper's tasks prepared from synthetic archives, and the submissions of their starters, each made once."""

import contextlib
import functools
import hashlib
import io
import re
import runpy
import shutil
import warnings
from pathlib import Path

import pytest
from paper_raw import TASKS_DIR, raw_files, write_archive
from threadpoolctl import threadpool_limits

from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.task import Task


def unpinned(name: str, folder: Path, data_root: Path) -> Path:
    """A copy of the task that accepts the synthetic archive: with its hash, and without the check of row counts."""
    shutil.copytree(TASKS_DIR / "paper" / name, folder)
    archive = runpy.run_path(str(folder / "prepare.py"))["RAW"]
    path = data_root / "raw" / archive.name / archive.file
    write_archive(path, raw_files(name))
    text = re.sub(r"\b(rows|expected)=[\d_]+", r"\1=None", (folder / "prepare.py").read_text())
    if archive.md5:
        text = text.replace(archive.md5, hashlib.md5(path.read_bytes()).hexdigest())
    (folder / "prepare.py").write_text(text)
    return folder


@pytest.fixture(scope="session")
def tasks(tmp_path_factory):
    """name -> the prepared task."""
    root = tmp_path_factory.mktemp("paper")

    @functools.cache
    def task(name: str) -> Task:
        folder = unpinned(name, root / "tasks" / name, root / "data")
        prepare_task(folder, folder.parent, root / "data")
        return load_task(folder, folder.parent, root / "data")

    return task


@pytest.fixture(scope="session")
def starters(tasks, tmp_path_factory):
    """name -> the starter's submission, and what it printed."""

    @functools.cache
    def submission(name: str) -> tuple[bytes, str]:
        task, workspace = tasks(name), tmp_path_factory.mktemp("starter")
        (workspace / "data").symlink_to(task.data_dir)
        (workspace / "train.py").write_text(task.starter)
        printed = io.StringIO()
        # In this process, since importing scikit-learn again takes longer than all the starters; with one thread, as in
        # a sandbox, since more threads than cores are slow.
        with (
            contextlib.chdir(workspace),
            contextlib.redirect_stdout(printed),
            threadpool_limits(1),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message="Stochastic Optimizer")
            runpy.run_path("train.py", run_name="__main__")
        return (workspace / task.submission).read_bytes(), printed.getvalue()

    return submission
