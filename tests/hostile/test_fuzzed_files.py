"""Whatever files a script leaves either pass through a next job unchanged, or are left out and counted."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_programs.trees import grow, tree
from sandboxes import QUICK, Host

from mlagent_jax.sandbox.interface import Job, Result, Status
from mlagent_jax.sandbox.pool import check_job
from mlagent_jax.sandbox.sandbox_worker import names, workspace

_AGAIN = "again.py"


def run(host: Host, files: dict[str, bytes], script: str) -> Result:
    job = Job(files, script, host.data_dir, "digest", QUICK, "trees", "submission.csv")
    return host.sandbox.run(job)


def run_two_jobs(host: Host, seed: int) -> None:
    """Runs a script that leaves a tree of files, then one that counts what was kept of it."""
    program = tree(seed)
    first = run(host, {"train.py": program.source.encode()}, "train.py")
    assert first.status in program.statuses, (seed, first.status, first.error, first.output)
    kept = dict(first.files) | {_AGAIN: b"import os\nprint(sum(len(names) for _, _, names in os.walk('.')))"}
    second = run(host, kept, _AGAIN)
    assert second.status is Status.OK, (seed, second.status, second.error, second.output)
    assert second.files == kept, seed
    assert not second.left_out, seed
    in_data = sum(len(files) for _, _, files in os.walk(host.data_dir))
    assert int(second.output) == len(kept) + in_data


def test_two_jobs_in_a_row(host: Host) -> None:
    # Some of these trees make a container end, and starting another one takes a while.
    for seed in range(0, 1000, 250 if host.sandbox.name == "docker" else 40):
        run_two_jobs(host, seed)


@pytest.mark.slow
def test_two_jobs_in_a_row_a_thousand_times(host: Host) -> None:
    if host.sandbox.name == "docker":
        pytest.skip("two new containers for each tree; under bubblewrap the same worker runs on all of them")
    for seed in range(1000):
        run_two_jobs(host, seed)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder in memory, where creating and removing thousands of files is fast, as in a sandbox."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize("seeds", [range(0, 1000, 10), pytest.param(range(1000), marks=pytest.mark.slow)])
def test_trees_are_collected_and_written_back(
    seeds: range, in_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's part of two jobs, without a sandbox."""
    limits = workspace.CollectionLimits("submission.csv", 100, 2)
    collected = 0
    for seed in seeds:
        place, other = in_memory / f"{seed}", in_memory / "other"
        place.mkdir()
        other.mkdir()
        monkeypatch.chdir(place)
        (place / "train.py").write_bytes(b"pass")
        grow(seed)
        with contextlib.suppress(workspace.TooMuchOutputError):
            files, left_out = workspace.collect_files(str(place), 200, 64 << 20, limits)
            # Nothing is dropped silently.
            assert len(files) + sum(left_out.values()) == _count(place, "", limits.output)
            check_job(Job({**files, _AGAIN: b""}, _AGAIN, place))
            workspace.write_files(str(other), files)
            assert workspace.collect_files(str(other), 200, 64 << 20, limits) == (files, {})
            collected += len(files)
        monkeypatch.chdir(in_memory)
        workspace.clear(str(other), "")
        other.rmdir()
        shutil.rmtree(place, ignore_errors=True)
    assert collected > len(seeds)


def _count(root: Path, folder: str, output: str) -> int:
    """All files, and the folders that are left out because of their name."""
    count = 0
    for entry in os.scandir(root / folder):
        name = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_dir(follow_symlinks=False) and name != output and not names.why_invalid(name):
            count += _count(root, name, output)
        else:
            count += name != "data"
    return count


def test_jobs_and_tools_accept_the_same_names() -> None:
    from mlagent_jax.environment.workspace import WorkspaceError, clean_path

    for name in ("a", "a b", "a/b.c", "é" * 120, "'\"*~:%", "submission.csv", "a /b", "...", "-"):
        assert not names.why_invalid(name)
        assert clean_path(name) == name
    for name in (
        "",
        ".",
        "..",
        "a/../b",
        "/a",
        "a//b",
        "a/",
        " a",
        "a ",
        "a\nb",
        "a\\b",
        "\udcff",
        "a" * 121,
        "data/x",
    ):
        assert names.why_invalid(name), name
        with contextlib.suppress(WorkspaceError):
            assert clean_path(name) != name or name in (".", "data/x")
    assert "255 bytes" in names.why_invalid("😀" * 64)
    assert not names.why_invalid("😀" * 60 + "/" + "😀" * 59)
