"""What `experiments.sandbox gc` frees of a work directory, and what it never does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import sandbox
from experiments.workdir import Workdir, WorkdirError, collect_garbage
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.sandbox.cache import CachedSandbox, store_in
from mlagent_jax.sandbox.interface import Job, Limits, Result, Status

JOB = Job({"train.py": b"print(1)"}, "train.py", Path("/data"), "digest")


class Noisy:
    """A backend whose every run leaves 100 kB of its own."""

    name = "noisy"
    isolated = True

    def identity(self) -> Mapping[str, str]:
        return {}

    def check(self, limits: Limits) -> None: ...

    def run(self, job: Job) -> Result:
        return Result(Status.OK, 0, files={"noise": job.data_digest.encode() * 100_000})

    def release(self, lease: str) -> None: ...

    def close(self) -> None: ...


def test_what_records_name_stays(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    store = SnapshotStore(workdir.snapshots)
    named = [store.put({"train.py": b"%d" % number}) for number in range(3)]
    unnamed = store.put({"train.py": b"forgotten", "noise": bytes(range(256)) * 1000})
    for place, snapshot in zip(
        ("collect/trajectories.jsonl", "ppo/rollouts.jsonl", "state.json"), named, strict=True
    ):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"steps": [{"snapshots": [snapshot]}]}) + "\n")
    freed = collect_garbage(workdir, quota_mb=1)
    assert (freed.executions, freed.files) == (0, 3)
    assert [store.get(snapshot)["train.py"] for snapshot in named] == [b"0", b"1", b"2"]
    assert unnamed not in set(store.workspaces.identities())
    assert collect_garbage(workdir, quota_mb=1).files == 0


def test_a_run_at_work_is_left_alone_and_what_is_no_work_directory_is_said(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path / "run")
    SnapshotStore(workdir.snapshots).put({"a": b""})
    with workdir.locked(), pytest.raises(WorkdirError, match="another run is using"):
        collect_garbage(workdir, quota_mb=1)
    with pytest.raises(WorkdirError, match="not a work directory"):
        collect_garbage(Workdir(tmp_path), quota_mb=1)


def test_a_store_that_runs_share_is_told_from_a_work_directory(tmp_path: Path, monkeypatch, capsys) -> None:
    """It has no lock and no snapshots, and its files go by the executions alone."""
    with CachedSandbox(Noisy(), store_in(tmp_path)) as executions:
        for number in range(3):
            executions.run(dataclasses.replace(JOB, data_digest=str(number)))
    monkeypatch.setattr(sandbox, "QUOTA_MB", SimpleNamespace(value=0.1))
    assert sandbox._collect_folders((str(tmp_path),)) == 0
    assert "2 executions were beyond the quota of 0.1 MB" in capsys.readouterr().out
