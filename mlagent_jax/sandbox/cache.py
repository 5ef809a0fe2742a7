"""Caches results by the content of their jobs, so that no execution is paid for twice."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from mlagent_jax.blobs import BlobStore
from mlagent_jax.errors import UserError
from mlagent_jax.sandbox.interface import Job, Limits, Result, Sandbox, Status
from mlagent_jax.single_flight import SingleFlight
from mlagent_jax.sqlite_store import KEPT, STORES_PER_EVICTION, OtherVersionError, evict, open_store, touch

# Increment whenever the same job would give another result, or the table changes.
_VERSION = 3
# Total size of all cached executions, above which the least recently used are evicted.
QUOTA_MB = 4096.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY,
    used REAL NOT NULL,   -- seconds since 1970
    bytes INTEGER NOT NULL, -- of its files and of itself
    result TEXT NOT NULL  -- JSON; files as {name: id of a blob}
) WITHOUT ROWID;
"""
_TABLE = "results"
_MIN_CPU_SHARE = 0.8  # of its wall time, for a timeout to be the job's own doing
_FILE = "executions.sqlite"


class CacheError(UserError):
    """The cache file cannot be used."""


def store_in(folder: Path) -> Path:
    """The file of the executions that all runs share, in a folder of its own; their files lie beside it."""
    return folder / _FILE


class CachedSandbox:
    """A sandbox that runs each distinct job once; see `Sandbox`.

    Thread-safe. Several processes may share `path`, which stays intact through a kill -9. It must be on a local disk.

    A job's key consists of its files, script, `data_digest` and limits, and of the backend's name and identity (see
    `Sandbox.identity`). A `SANDBOX_ERROR` is never stored, nor a timeout of a job that hardly had a processor: on an
    idle host it might have ended. Identical jobs that arrive together run once. A job runs again if the files of its
    result are gone. Above `quota_mb`, the least recently used results are evicted.

    blobs: where the files of results are kept, if others share it: they decide what is removed there. None for a place
        beside `path`, from which the files of evicted results are removed too.

    Attributes:
        hits: how many results needed no execution of their own, including those of identical jobs that arrived
            together.
        misses: how many did.

    Raises:
        CacheError: `path` cannot be opened, or is not a database, or of another version.
    """

    def __init__(
        self, inner: Sandbox, path: Path, blobs: BlobStore | None = None, quota_mb: float = QUOTA_MB
    ) -> None:
        self._inner = inner
        self._path = path
        self._blobs = blobs or _own_blobs(path)
        self._owns_blobs = blobs is None
        self._quota = quota_mb * 2**20
        self._stored = 0
        self._lock = threading.Lock()  # guards everything below
        self._flights: SingleFlight[Result] = SingleFlight()
        self.hits = 0
        self.misses = 0
        self._database = _open(path)

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def isolated(self) -> bool:
        return self._inner.isolated

    @functools.cached_property
    def _platform(self) -> dict[str, str]:
        """What a result depends on beside its job."""
        return {"cache": str(_VERSION), "backend": self._inner.name, **self._inner.identity()}

    def identity(self) -> Mapping[str, str]:
        """See `Sandbox.identity`."""
        return self._inner.identity()

    def run(self, job: Job) -> Result:
        """See `Sandbox.run`.

        Raises:
            ValueError: the job has data without a digest.
            CacheError: the file has been damaged since it was opened.
        """
        key = self.key(job)
        result, was_shared = self._flights.do(key, lambda: self._run(key, job))
        return self._share(result) if was_shared else result

    def check(self, limits: Limits) -> None:
        """See `Sandbox.check`."""
        self._inner.check(limits)

    def release(self, lease: str) -> None:
        """See `Sandbox.release`."""
        self._inner.release(lease)

    def key(self, job: Job) -> str:
        """The key of `job` in the cache: a hexadecimal digest. Raises ValueError if its data has no digest."""
        if job.data_dir is not None and not job.data_digest:
            raise ValueError(f"a job with data ({job.data_dir}) needs data_digest: its result depends on it")
        content = {
            "platform": self._platform,
            "files": {name: hashlib.sha256(blob).hexdigest() for name, blob in job.files.items()},
            "script": job.script,
            "output": job.output,
            "data": job.data_digest,
            "limits": dataclasses.asdict(job.limits),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __enter__(self) -> CachedSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and the inner sandbox."""
        self._inner.close()
        with self._lock:
            self._database.close()

    def _run(self, key: str, job: Job) -> Result:
        with self._lock:
            known = self._load(key)
            if known is not None:
                self.hits += 1
                return known
            self.misses += 1
        result = self._inner.run(job)
        if _is_reproducible(result):
            with self._lock:
                self._store(key, result)
        return result

    def _share(self, result: Result) -> Result:
        if result.status is Status.SANDBOX_ERROR:
            return result
        with self._lock:
            self.hits += 1
        return dataclasses.replace(result, cached=True)

    def _load(self, key: str) -> Result | None:
        try:
            row = self._database.execute("SELECT result FROM results WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise _cache_error(self._path, error) from error
        if row is None:
            return None
        record: dict[str, Any] = json.loads(row[0])
        files = {name: self._blobs.get(blob) for name, blob in record.pop("files").items()}
        if None in files.values():
            return None
        touch(self._database, _TABLE, key)
        return Result(**{**record, "status": Status(record["status"]), "files": files, "cached": True})

    def _store(self, key: str, result: Result) -> None:
        record = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
        size = sum(map(len, result.files.values()))
        try:
            # Store the blobs first, so that whoever reads the execution finds them.
            record |= {"files": {name: self._blobs.put(blob) for name, blob in result.files.items()}}
            text = json.dumps(record | {"cached": False})
            with self._database:
                self._database.execute(
                    "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)",
                    (key, time.time(), size + len(text), text),
                )
            if self._stored % STORES_PER_EVICTION == 0:
                self._evict()
            self._stored += 1
        except (sqlite3.Error, OSError) as error:
            # For example a full disk. The result is still valid, and other threads are waiting for it.
            logging.warning("could not store an execution in %s: %s", self._path, error)

    def _evict(self) -> None:
        count = evict(self._database, _TABLE, self._quota, KEPT * self._quota)
        if not count:
            return
        note = f"`python -m experiments.sandbox gc {self._path.parent}` frees their space"
        if self._owns_blobs:
            files, size = self._blobs.remove_all_but(_referenced(self._database))
            note = f"{files} files of {size / 2**20:.0f} MB were removed"
        logging.info(
            "%d executions were evicted from %s, which has reached its quota of %.0f MB; %s",
            count,
            self._path,
            self._quota / 2**20,
            note,
        )


def _is_reproducible(result: Result) -> bool:
    """Whether the job decided how it ended, and not the load of the host."""
    if result.status is Status.TIMEOUT:
        return result.cpu_seconds >= _MIN_CPU_SHARE * result.wall_seconds
    return result.status is not Status.SANDBOX_ERROR


def _own_blobs(path: Path) -> BlobStore:
    return BlobStore(path.with_name(f"{path.name}.blobs"))


def _cache_error(path: Path, error: Exception) -> CacheError:
    return CacheError(
        f"The cache of executions {path} cannot be used ({error}): make its folder writable, or delete the file to "
        "start with an empty cache."
    )


def _open(path: Path) -> sqlite3.Connection:
    """Raises CacheError, for a file of another version too."""
    try:
        return open_store(path, _SCHEMA, _VERSION)
    except OtherVersionError:
        raise CacheError(
            f"The store of executions {path} is of another version of this program: use that version, or delete "
            f"the file to start with an empty store, or name another folder in config.sandbox.cache_dir."
        ) from None
    except (sqlite3.Error, OSError) as error:
        raise _cache_error(path, error) from error


def _referenced(database: sqlite3.Connection) -> set[str]:
    """The blobs of all results."""
    rows = database.execute("SELECT result FROM results")
    return {blob for (text,) in rows for blob in json.loads(text)["files"].values()}


def collect_garbage(path: Path, quota_mb: float) -> tuple[int, set[str]]:
    """Shrinks the cache at `path` to its quota. Returns how many results were evicted, and the blobs of the others.

    Raises CacheError: it cannot be used.
    """
    if not path.exists():
        return 0, set()
    try:
        with contextlib.closing(_open(path)) as database:
            evicted = evict(database, _TABLE, quota_mb * 2**20, quota_mb * 2**20)
            database.execute("VACUUM")
            return evicted, _referenced(database)
    except (sqlite3.Error, OSError) as error:
        raise _cache_error(path, error) from error


@dataclasses.dataclass(frozen=True)
class Freed:
    """executions: removed to keep the quota. files, bytes: of what nothing refers to any more."""

    executions: int
    files: int
    bytes: int


def collect_garbage_of_store(folder: Path, quota_mb: float) -> Freed:
    """Shrinks a store that all runs share to its quota, and removes the files that no result refers to.

    Safe while runs use it: files of the last hour stay, since their writers may be about to refer to them. Raises
    CacheError.
    """
    path = store_in(folder)
    evicted, needed = collect_garbage(path, quota_mb)
    files, size = _own_blobs(path).remove_all_but(needed)
    return Freed(evicted, files, size)
