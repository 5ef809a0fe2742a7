"""Recorded calls of language models: an SQLite file that many processes may use at once, also across runs."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from absl import logging

from mlagent_jax.errors import UserError
from mlagent_jax.sqlite_store import KEPT, STORES_PER_EVICTION, OtherVersionError, evict, open_store, touch

_VERSION = 1  # increment whenever the table, or what a key is made of, changes
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY,
    used REAL NOT NULL,     -- seconds since 1970
    bytes INTEGER NOT NULL, -- of the answer
    answer TEXT NOT NULL    -- JSON
) WITHOUT ROWID;
"""
_TABLE = "calls"


class CallStoreError(UserError):
    """The file of recorded calls cannot be used."""


class CallStore:
    """Answers by key. Thread-safe; several processes may share `path`, which stays intact through a kill -9.

    It must be on a local disk. Above `quota_mb`, the least recently used answers are removed.
    Raises CallStoreError if `path` cannot be opened, or is not a database, or of another version.
    """

    def __init__(self, path: Path, quota_mb: float) -> None:
        self.path = path
        self._quota = quota_mb * 2**20
        self._stored = 0
        self._lock = threading.Lock()
        try:
            self._database = open_store(path, _SCHEMA, _VERSION)
        except OtherVersionError:
            raise CallStoreError(
                f"the recorded calls {path} are of another version of this program: use that version, delete the file, "
                "or name another folder in config.models.cache_dir"
            ) from None
        except (sqlite3.Error, OSError) as error:
            raise self._error(error) from error

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer that was stored under a key. Raises CallStoreError if the file is damaged."""
        with self._lock:
            try:
                row = self._database.execute("SELECT answer FROM calls WHERE key = ?", (key,)).fetchone()
                record: dict[str, Any] | None = None if row is None else json.loads(row[0])
            except (sqlite3.Error, ValueError) as error:
                raise self._error(error) from error
            if row is not None:
                touch(self._database, _TABLE, key)
        return record

    def put(self, key: str, answer: dict[str, Any]) -> dict[str, Any]:
        """Stores an answer, unless there is one; returns what is stored.

        So runs that ask the same at the same time go on with the same answer, and each can be replayed.
        Raises CallStoreError: without it, the answer would be paid for again.
        """
        text = json.dumps(answer)
        with self._lock:
            try:
                with self._database:
                    self._database.execute(
                        "INSERT INTO calls VALUES (?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                        (key, time.time(), len(text), text),
                    )
                    row = self._database.execute("SELECT answer FROM calls WHERE key = ?", (key,)).fetchone()
                if self._stored % STORES_PER_EVICTION == 0:
                    self._evict()
                self._stored += 1
                stored: dict[str, Any] = json.loads(row[0])
                return stored
            except (sqlite3.Error, ValueError) as error:
                raise self._error(error) from error

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _evict(self) -> None:
        removed = evict(self._database, _TABLE, self._quota, KEPT * self._quota)
        if not removed:
            return
        logging.warning(
            "%d recorded calls were removed from %s, which has reached its quota of %.0f MB (config.models.cache_mb): "
            "runs that made them can't be replayed any more",
            *(removed, self.path, self._quota / 2**20),
        )

    def _error(self, error: Exception) -> CallStoreError:
        return CallStoreError(
            f"the recorded calls {self.path} cannot be used ({error}): make its folder writable, free some space, or "
            "name another in config.models.cache_dir"
        )
