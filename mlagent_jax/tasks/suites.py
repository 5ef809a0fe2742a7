"""Suites of tasks. In each, the first nine tasks are for training and the last ten are held out."""

from __future__ import annotations

from pathlib import Path

from mlagent_jax.tasks.task_file import TaskError, list_tasks

OFFLINE = (
    "ames",
    "crowd_tweets",
    "deliveries",
    "digits8",
    "dirty_pages",
    "election_tweets",
    "lastfm_genres",
    "mlc_churn",
    "mnist5k",
    "computers",
    "emoji32",
    "grants",
    "hotel_rates",
    "hpc_jobs",
    "osu_leaf",
    "reuters_topics",
    "tate",
    "textures10",
    "word_pairs",
)
"""Tasks on real data from public packages. They need no account and no GPU, and run in minutes on two cores."""


def suite_names(suite: str, tasks_dir: Path) -> list[str]:
    """The names of the tasks of a suite.

    "all" means every task folder directly in `tasks_dir`, and "offline" nineteen of those. Any other suite is a folder
    of task folders in `tasks_dir`. Raises TaskError.
    """
    if suite == "all":
        return list_tasks(tasks_dir)
    if suite == "offline":
        return list(OFFLINE)
    names = list_tasks(tasks_dir / suite) if suite else []
    if not names:
        folders = sorted({path.parents[1].name for path in tasks_dir.glob("*/*/task.toml")})
        raise TaskError(
            f"there is no suite {suite!r}; choose one of {', '.join(['all', 'offline', *folders])}"
        )
    return names
