"""Remembers results by the content of their jobs, so that no execution is paid for twice."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import sqlite3
import threading
import time
import zlib
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from absl import logging

from mlagent_jax.errors import UserError
from mlagent_jax.sandbox.interface import Job, Limits, Result, Sandbox, Status

# Raised whenever the same job would give another result, or the tables another shape.
_VERSION = 1
_LIBRARIES = ("numpy", "pandas", "scikit-learn", "scipy")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs (digest TEXT PRIMARY KEY, compressed BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS executions (
    key TEXT PRIMARY KEY,
    created REAL NOT NULL,  -- seconds since 1970
    result TEXT NOT NULL    -- JSON; files as {name: digest of a blob}
) WITHOUT ROWID;
"""


class CacheError(UserError):
    """The file of the cache cannot be used."""


class CachedSandbox:
    """A sandbox that runs each distinct job once; see `Sandbox`.

    Thread-safe; several processes may share `path`, and it stays whole through a kill -9.

    A job is known by its files, script, `data_digest` and limits, and by the backend, interpreter and library
    versions that ran it. A `SANDBOX_ERROR` is never kept. Identical jobs that arrive together run once.

    Attributes:
        hits: results that were not run for, those shared between jobs that arrived together among them.
        misses: results that were.

    Raises:
        CacheError: `path` cannot be opened, or is not a database.
    """

    def __init__(self, inner: Sandbox, path: Path) -> None:
        self._inner = inner
        self._path = path
        self._platform = _platform(inner.name)
        self._lock = threading.Lock()  # of all that follows
        self._running: dict[str, Future[Result]] = {}
        self.hits = 0
        self.misses = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60, check_same_thread=False)
            # A write-ahead log keeps the file whole through a kill at any moment.
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise CacheError(
                f"The cache of executions {path} cannot be used ({error}): make its folder writable, or "
                "delete the file to begin an empty one."
            ) from error

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def isolated(self) -> bool:
        return self._inner.isolated

    def run(self, job: Job) -> Result:
        """See `Sandbox.run`. Raises ValueError for a job whose data has no digest."""
        key = self.key(job)
        with self._lock:
            known = self._load(key)
            if known is not None:
                self.hits += 1
                return known
            running = self._running.get(key)
            if running is None:
                mine: Future[Result] = Future()
                self._running[key] = mine
                self.misses += 1
        if running is not None:
            return self._share(running.result())
        try:
            result = self._inner.run(job)
        except BaseException as error:
            with self._lock:
                del self._running[key]
            mine.set_exception(error)
            raise
        with self._lock:
            if result.status is not Status.SANDBOX_ERROR:
                self._store(key, result)
            del self._running[key]
        mine.set_result(result)
        return result

    def check(self, limits: Limits) -> None:
        """See `Sandbox.check`."""
        self._inner.check(limits)

    def release(self, lease: str) -> None:
        """See `Sandbox.release`."""
        self._inner.release(lease)

    def key(self, job: Job) -> str:
        """The digest by which `job` is known, hexadecimal. Raises ValueError: its data has no digest."""
        if job.data_dir is not None and not job.data_digest:
            raise ValueError(f"a job with data ({job.data_dir}) needs data_digest: its result depends on it")
        content = {
            "platform": self._platform,
            "files": {name: hashlib.sha256(blob).hexdigest() for name, blob in job.files.items()},
            "script": job.script,
            "data": job.data_digest,
            "limits": dataclasses.asdict(job.limits),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __enter__(self) -> CachedSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and the sandbox below."""
        self._inner.close()
        with self._lock:
            self._database.close()

    def _share(self, result: Result) -> Result:
        if result.status is Status.SANDBOX_ERROR:
            return result
        with self._lock:
            self.hits += 1
        return dataclasses.replace(result, cached=True)

    def _load(self, key: str) -> Result | None:
        row = self._database.execute("SELECT result FROM executions WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        record: dict[str, Any] = json.loads(row[0])
        files = {name: self._load_blob(digest) for name, digest in record.pop("files").items()}
        return Result(**{**record, "status": Status(record["status"]), "files": files, "cached": True})

    def _load_blob(self, digest: str) -> bytes:
        query = "SELECT compressed FROM blobs WHERE digest = ?"
        return zlib.decompress(self._database.execute(query, (digest,)).fetchone()[0])

    def _store(self, key: str, result: Result) -> None:
        digests = {name: hashlib.sha256(blob).hexdigest() for name, blob in result.files.items()}
        record = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
        record |= {"files": digests, "cached": False}
        try:
            with self._database:  # one transaction: an execution never lacks its blobs
                self._database.executemany(
                    "INSERT OR IGNORE INTO blobs VALUES (?, ?)",
                    [(digests[name], zlib.compress(blob)) for name, blob in result.files.items()],
                )
                self._database.execute(
                    "INSERT OR IGNORE INTO executions VALUES (?, ?, ?)",
                    (key, time.time(), json.dumps(record)),
                )
        except sqlite3.OperationalError as error:
            # A full disk, say: the result stands, it only has to be run for again.
            logging.warning("could not keep an execution in %s: %s", self._path, error)


def _platform(backend: str) -> dict[str, str]:
    """What a result depends on beside its job."""
    versions = {"cache": str(_VERSION), "backend": backend, "machine": platform.machine()}
    versions["python"] = platform.python_version()
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "absent"
    return versions
