"""SQLite files of values by key that many processes share: opened, of one version, and kept to a size.

The table of such a file has the columns `key`, `used` (seconds since 1970) and `bytes` beside the value.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

_WAIT_SECONDS = 60  # for other processes that write
KEPT = 0.9  # share of the quota that an eviction leaves, so that the next one is not due at once
STORES_PER_EVICTION = 64


class OtherVersionError(Exception):
    """The file is of another version of this program."""


def open_store(path: Path, schema: str, version: int) -> sqlite3.Connection:
    """Opens the file, which stays intact through a kill at any moment, and creates its table in a new one.

    Raises OtherVersionError, sqlite3.Error and OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=_WAIT_SECONDS, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")  # keeps it intact
        database.execute("PRAGMA synchronous = NORMAL")
        _create(database, schema, version)
    except BaseException:
        database.close()
        raise
    return database


def touch(database: sqlite3.Connection, table: str, key: str) -> None:
    """Notes that a value was used. If this fails, the value may be evicted too early. That is all."""
    with contextlib.suppress(sqlite3.Error), database:
        database.execute(f"UPDATE {table} SET used = ? WHERE key = ?", (time.time(), key))


def evict(database: sqlite3.Connection, table: str, quota: float, kept: float) -> int:
    """If the values take more than `quota` bytes, evicts the least recently used until they take at most `kept`.

    Returns how many. Runs in one transaction, so that processes that share the file never see it half done. Raises
    sqlite3.Error.
    """
    with database:
        total = database.execute(f"SELECT COALESCE(SUM(bytes), 0) FROM {table}").fetchone()[0]
        if total <= quota:
            return 0
        evicted = []
        for key, size in database.execute(f"SELECT key, bytes FROM {table} ORDER BY used"):
            evicted.append((key,))
            total -= size
            if total <= kept:
                break
        database.executemany(f"DELETE FROM {table} WHERE key = ?", evicted)
    return len(evicted)


def _create(database: sqlite3.Connection, schema: str, version: int) -> None:
    with database:
        database.execute("BEGIN IMMEDIATE")  # of several processes that start, one creates it
        found = database.execute("PRAGMA user_version").fetchone()[0]
        if found == version:
            return
        if database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
            raise OtherVersionError
        database.execute(schema)
        database.execute(f"PRAGMA user_version = {version}")
