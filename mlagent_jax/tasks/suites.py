"""The suites: which tasks belong together. Of each the first nine are trained on and the last ten are held out."""

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
"""On real data out of packages: no account, no GPU, minutes on two cores."""


def suite_names(suite: str, tasks_dir: Path) -> list[str]:
    """Names of the tasks of a suite; "all" are those of `tasks_dir` itself, and "offline" nineteen of them.

    Any other suite is a folder of task folders in `tasks_dir`. Raises TaskError.
    """
    if suite == "all":
        return list_tasks(tasks_dir)
    if suite == "offline":
        return list(OFFLINE)
    names = list_tasks(tasks_dir / suite) if suite else []
    if not names:
        folders = sorted({path.parents[1].name for path in tasks_dir.glob("*/*/task.toml")})
        raise TaskError(f"there is no suite {suite!r}; suites are {', '.join(['all', 'offline', *folders])}")
    return names
