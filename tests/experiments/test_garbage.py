"""What `experiments.sandbox gc` frees of a work directory, and what it never does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.workdir import Workdir, WorkdirError, collect_garbage
from mlagent_jax.environment.snapshots import SnapshotStore


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
