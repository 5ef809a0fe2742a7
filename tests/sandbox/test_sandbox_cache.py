"""The cache: identical jobs run once, everything that matters is in the key, nothing is lost when it is killed."""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from mlagent_jax.blobs import BlobStore
from mlagent_jax.sandbox.cache import CachedSandbox, CacheError, collect_garbage
from mlagent_jax.sandbox.interface import Job, Limits, Result, Status

JOB = Job({"train.py": b"print(1)", "notes/a.txt": b"a"}, "train.py", Path("/data"), "digest")
RESULT = Result(
    status=Status.FAILED,
    exit_code=3,
    output="été\n",
    dropped_bytes=7,
    wall_seconds=0.25,
    cpu_seconds=0.125,
    peak_memory_mb=12.5,
    files={"train.py": b"print(1)", "binary": bytes(range(256)) * 100, "empty": b""},
)


class Recorder:
    """A backend that counts its runs and returns a given result."""

    isolated = True
    platform: ClassVar[dict[str, str]] = {"python": "3.11"}

    def identity(self) -> Mapping[str, str]:
        return self.platform

    def __init__(
        self, result: Result = RESULT, name: str = "fake", wait: threading.Event | None = None
    ) -> None:
        self.result = result
        self.name = name
        self.wait = wait
        self.runs = 0
        self.closed = False

    def run(self, job: Job) -> Result:
        self.runs += 1
        if self.wait:
            assert self.wait.wait(10)
        return self.result

    def release(self, lease: str) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_second_run_is_a_hit_and_identical(tmp_path: Path) -> None:
    inner = Recorder()
    with CachedSandbox(inner, tmp_path / "new" / "cache.sqlite") as cache:
        first, second = cache.run(JOB), cache.run(JOB)
        assert first == RESULT
        assert second == dataclasses.replace(RESULT, cached=True)
        assert (inner.runs, cache.hits, cache.misses) == (1, 1, 1)
        assert (cache.name, cache.isolated) == ("fake", True)
    assert inner.closed


def test_survives_being_reopened(tmp_path: Path) -> None:
    with CachedSandbox(Recorder(), tmp_path / "cache") as cache:
        cache.run(JOB)
    inner = Recorder()
    with CachedSandbox(inner, tmp_path / "cache") as cache:
        assert cache.run(JOB) == dataclasses.replace(RESULT, cached=True)
        assert inner.runs == 0


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(JOB, files={**JOB.files, "notes/a.txt": b"b"}),
        dataclasses.replace(JOB, files={**JOB.files, "more": b""}),
        dataclasses.replace(JOB, files={"train.py": b"print(1)", "notes/b.txt": b"a"}),
        dataclasses.replace(JOB, script="notes/a.txt"),
        dataclasses.replace(JOB, output="submission.csv"),
        dataclasses.replace(JOB, data_digest="other"),
        dataclasses.replace(JOB, limits=Limits(wall_seconds=31)),
    ],
)
def test_what_matters_is_in_the_key(tmp_path: Path, other: Job) -> None:
    with CachedSandbox(Recorder(), tmp_path / "cache") as cache:
        assert cache.key(other) != cache.key(JOB)


def test_what_does_not_matter_is_not_in_the_key(tmp_path: Path) -> None:
    with CachedSandbox(Recorder(), tmp_path / "cache") as cache:
        reordered = dict(reversed(JOB.files.items()))
        moved = dataclasses.replace(JOB, files=reordered, data_dir=Path("/elsewhere"))
        assert cache.key(moved) == cache.key(JOB)


def test_backends_do_not_share(tmp_path: Path) -> None:
    with CachedSandbox(Recorder(name="a"), tmp_path / "cache") as a:
        a.run(JOB)
    inner = Recorder(name="b")
    with CachedSandbox(inner, tmp_path / "cache") as b:
        assert not b.run(JOB).cached


@pytest.mark.parametrize("what", ["python", "packages", "image", "runtime", "gpu"])
def test_the_sandboxs_identity_is_in_the_key(tmp_path: Path, what: str) -> None:
    class Other(Recorder):
        platform: ClassVar[dict[str, str]] = {**Recorder.platform, what: "another"}

    with CachedSandbox(Recorder(), tmp_path / "cache") as cache:
        cache.run(JOB)
    with CachedSandbox(Other(), tmp_path / "cache") as cache:
        assert not cache.run(JOB).cached
    with CachedSandbox(Recorder(), tmp_path / "cache") as cache:
        assert cache.run(JOB).cached


def _job(number: int) -> Job:
    return dataclasses.replace(JOB, data_digest=str(number))


class Noisy(Recorder):
    """Returns 100 kB of its own from every run."""

    def run(self, job: Job) -> Result:
        self.runs += 1
        return dataclasses.replace(RESULT, files={"noise": job.data_digest.encode() * 100_000})


def test_above_the_quota_the_least_recently_used_are_evicted(tmp_path: Path) -> None:
    path, inner = tmp_path / "cache", Noisy()
    with CachedSandbox(inner, path) as cache:
        for number in range(6):
            cache.run(_job(number))
        cache.run(_job(0))  # the oldest, but used now
    evicted, blobs = collect_garbage(path, quota_mb=0.3)
    assert (evicted, len(blobs)) == (3, 3)
    with CachedSandbox(inner, path) as cache:
        assert [cache.run(_job(number)).cached for number in (0, 5, 4)] == [True] * 3
        assert not cache.run(_job(1)).cached
    assert collect_garbage(tmp_path / "none", 1.0) == (0, set())


def test_a_full_cache_stays_at_its_quota_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlagent_jax.sandbox.cache.STORES_PER_EVICTION", 1)
    with CachedSandbox(Noisy(), tmp_path / "cache", quota_mb=0.35) as cache:
        for number in range(9):
            cache.run(_job(number))
    assert collect_garbage(tmp_path / "cache", 1e6)[0] == 0
    assert len(collect_garbage(tmp_path / "cache", 1e6)[1]) == 3


def test_files_are_shared_and_a_job_whose_files_are_gone_runs_again(tmp_path: Path) -> None:
    blobs, inner = BlobStore(tmp_path / "blobs"), Recorder()
    identity = blobs.put(RESULT.files["binary"])
    with CachedSandbox(inner, tmp_path / "cache", blobs) as cache:
        cache.run(JOB)
        assert len(list(blobs.identities())) == len(RESULT.files)
        assert (tmp_path / "cache").stat().st_size < 100_000
        blobs.path(identity).unlink()
        assert cache.run(JOB) == RESULT
        assert inner.runs == 2
        assert cache.run(JOB).cached


@pytest.mark.parametrize(("cpu_seconds", "runs"), [(19.9, 1), (8.0, 2), (0.0, 2)])
def test_a_timeout_is_stored_only_if_the_job_had_a_processor(
    tmp_path: Path, cpu_seconds: float, runs: int
) -> None:
    inner = Recorder(Result(Status.TIMEOUT, wall_seconds=20.0, cpu_seconds=cpu_seconds))
    with CachedSandbox(inner, tmp_path / "cache") as cache:
        assert [cache.run(JOB).status for _ in range(2)] == [Status.TIMEOUT] * 2
    assert inner.runs == runs


def test_a_sandbox_error_is_never_stored(tmp_path: Path) -> None:
    inner = Recorder(Result(Status.SANDBOX_ERROR, error="broken"))
    with CachedSandbox(inner, tmp_path / "cache") as cache:
        assert cache.run(JOB).status is Status.SANDBOX_ERROR
        inner.result = RESULT
        assert cache.run(JOB) == RESULT
        assert inner.runs == 2


def test_data_without_a_digest_is_refused(tmp_path: Path) -> None:
    with (
        CachedSandbox(Recorder(), tmp_path / "cache") as cache,
        pytest.raises(ValueError, match="needs data_digest"),
    ):
        cache.run(dataclasses.replace(JOB, data_digest=""))


def test_identical_jobs_that_arrive_together_run_once(tmp_path: Path) -> None:
    gate = threading.Event()
    inner = Recorder(wait=gate)
    with CachedSandbox(inner, tmp_path / "cache") as cache, ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(cache.run, JOB) for _ in range(4)]
        other = threads.submit(cache.run, dataclasses.replace(JOB, data_digest="other"))
        gate.set()
        results = [future.result(10) for future in futures]
        other.result(10)
        assert inner.runs == 2
        assert sorted(result.cached for result in results) == [False, True, True, True]
        assert (cache.hits, cache.misses) == (3, 2)


def test_a_failing_backend_fails_all_waiting_threads_and_the_next_job_tries_again(tmp_path: Path) -> None:
    class Broken(Recorder):
        def run(self, job: Job) -> Result:
            super().run(job)
            raise ValueError("no job")

    gate = threading.Event()
    with CachedSandbox(Broken(wait=gate), tmp_path / "cache") as cache, ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(cache.run, JOB) for _ in range(2)]
        gate.set()
        for future in futures:
            with pytest.raises(ValueError, match="no job"):
                future.result(10)
        with pytest.raises(ValueError, match="no job"):
            cache.run(JOB)


def test_is_intact_after_a_kill(tmp_path: Path) -> None:
    """Kills a process that stores all the time. Everything that it has reported as stored is intact."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_sandbox_cache import *
cache = CachedSandbox(Recorder(), Path({str(tmp_path / "cache")!r}))
for number in range(100_000):
    cache.run(dataclasses.replace(JOB, data_digest=str(number)))
    print(number, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(50):
            last = int(writer.stdout.readline())
        writer.kill()
    inner = Recorder()
    with CachedSandbox(inner, tmp_path / "cache") as cache:
        for number in range(last + 1):
            result = cache.run(dataclasses.replace(JOB, data_digest=str(number)))
            assert result == dataclasses.replace(RESULT, cached=True)
        assert inner.runs == 0
        assert cache.run(JOB).status is Status.FAILED  # the file is still writable


def test_reports_a_file_that_is_not_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.write_text("this is not a database, and long enough to be recognized as none" * 10)
    with pytest.raises(CacheError, match=r"cache cannot be used .*delete the file"):
        CachedSandbox(Recorder(), path)
    assert path.read_text().startswith("this is not")
    with pytest.raises(CacheError, match="make its folder writable"):
        CachedSandbox(Recorder(), path / "below" / "a-file")


def test_damage_while_it_is_open_is_reported_and_no_thread_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.sqlite"
    with CachedSandbox(Recorder(), path) as cache:
        cache.run(JOB)
    pages = path.read_bytes()
    path.write_bytes(pages[:4096] + b"\xff" * (len(pages) - 4096))
    with (
        CachedSandbox(Recorder(), path) as cache,
        pytest.raises(CacheError, match=r"cache.sqlite cannot be used .*malformed"),
    ):
        cache.run(JOB)
    with pytest.raises(CacheError, match="cannot be used"):
        collect_garbage(path, 1)
    # If the damage is found when storing a result, all waiting threads still get the result.
    path.write_bytes(pages)
    release = threading.Event()
    other = dataclasses.replace(JOB, script="notes/a.txt")
    with CachedSandbox(Recorder(wait=release), path) as cache, ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(cache.run, other) for _ in range(2)]
        monkeypatch.setattr("mlagent_jax.sandbox.cache.evict", _fail)
        release.set()
        assert [one.result(10).output for one in waiting] == [RESULT.output] * 2


def _fail(*_: object) -> int:
    raise sqlite3.DatabaseError("database disk image is malformed")
