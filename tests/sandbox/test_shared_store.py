"""A store of executions that several runs share: at the same time, through kill -9, and within its quota."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from test_sandbox_cache import JOB, RESULT, Noisy, Recorder

from mlagent_jax.blobs import GRACE_SECONDS
from mlagent_jax.sandbox.cache import (
    CachedSandbox,
    CacheError,
    collect_garbage,
    collect_garbage_of_store,
    store_in,
)

# Prints a number as soon as its execution has been returned.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from test_sandbox_cache import *
from mlagent_jax.sandbox.cache import store_in
with CachedSandbox(Recorder(), store_in(Path(sys.argv[2]))) as cache:
    for number in range(int(sys.argv[3]), int(sys.argv[4])):
        cache.run(dataclasses.replace(JOB, data_digest=str(number)))
        print(number, flush=True)
    print("misses", cache.misses)
"""


def start(folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    arguments = [str(Path(__file__).parent), str(folder), str(first), str(last)]
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True)


def job(number: int):
    return dataclasses.replace(JOB, data_digest=str(number))


def test_two_runs_at_once_and_one_is_killed(tmp_path: Path) -> None:
    """Both create the store, write what the other writes too, and read; one is killed in the middle."""
    whole, killed = start(tmp_path, 0, 120), start(tmp_path, 60, 100_000)
    assert whole.stdout is not None and killed.stdout is not None
    for _ in range(40):
        last = int(killed.stdout.readline())
    killed.kill()
    killed.wait()
    told, _ = whole.communicate(timeout=60)
    assert whole.returncode == 0
    assert told.splitlines()[:-1] == [str(number) for number in range(120)]
    inner = Recorder()
    with CachedSandbox(inner, store_in(tmp_path)) as cache:
        for number in range(max(120, last + 1)):
            assert cache.run(job(number)) == dataclasses.replace(RESULT, cached=True)
    assert inner.runs == 0


def test_what_one_run_has_executed_another_finds(tmp_path: Path) -> None:
    with (
        CachedSandbox(Recorder(), store_in(tmp_path)) as first,
        CachedSandbox(Recorder(), store_in(tmp_path)) as second,
    ):
        assert not first.run(JOB).cached
        assert second.run(JOB) == dataclasses.replace(RESULT, cached=True)
        assert (second.hits, second.misses) == (1, 0)


def age(folder: Path) -> None:
    """As if every file had been written two grace periods ago."""
    for path in folder.rglob("*"):
        if path.is_file() and len(path.name) == 64:
            long_ago = path.stat().st_mtime - 2 * GRACE_SECONDS
            os.utime(path, (long_ago, long_ago))


def blobs(folder: Path) -> int:
    return sum(len(path.name) == 64 for path in folder.rglob("*") if path.is_file())


def test_a_full_store_removes_the_files_of_what_it_evicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those that no run can be about to name."""
    monkeypatch.setattr("mlagent_jax.sandbox.cache.STORES_PER_EVICTION", 1)
    with CachedSandbox(Noisy(), store_in(tmp_path), quota_mb=0.35) as cache:
        for number in range(5):
            cache.run(job(number))
        assert blobs(tmp_path) == 5
        age(tmp_path)
        cache.run(job(5))
    assert blobs(tmp_path) == 3


def test_gc_frees_a_store_in_use_down_to_its_quota(tmp_path: Path) -> None:
    with CachedSandbox(Noisy(), store_in(tmp_path)) as cache:
        for number in range(6):
            cache.run(job(number))
        age(tmp_path)
        freed = collect_garbage_of_store(tmp_path, quota_mb=0.3)
        assert (freed.executions, freed.files) == (3, 3) and freed.bytes > 0
        assert cache.run(job(5)).cached and not cache.run(job(0)).cached


def test_a_store_of_another_version_is_one_sentence_and_stays_as_it_is(tmp_path: Path) -> None:
    path = store_in(tmp_path)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE executions (key TEXT)")
    before = path.read_bytes()
    for open_it in (lambda: CachedSandbox(Recorder(), path), lambda: collect_garbage(path, 1.0)):
        with pytest.raises(
            CacheError, match="is of another version of this program: use that version, or delete"
        ):
            open_it()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("executions",)]
    assert len(path.read_bytes()) == len(before)
