"""The snapshot store: exact, deduplicated, and safe for several processes and after a kill."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlagent_jax.environment.snapshots import SnapshotError, SnapshotStore
from mlagent_jax.errors import UserError

FILES = {"train.py": b"print(1)\n", "old/train.py": b"print(1)\n", "empty": b"", "bin": bytes(range(256))}


def blobs(root):
    return sorted(path for path in (root / "blobs").rglob("*") if path.is_file())


def test_what_is_put_comes_back(tmp_path):
    store = SnapshotStore(tmp_path)
    assert SnapshotStore(tmp_path).get(store.put(FILES)) == FILES
    assert store.get(store.put({})) == {}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(min_size=1), st.binary()))
def test_any_names_and_bytes_come_back(tmp_path, files):
    store = SnapshotStore(tmp_path)
    assert store.get(store.put(files)) == files


def test_names_that_are_not_unicode_come_back(tmp_path):
    store = SnapshotStore(tmp_path)
    files = {os.fsdecode(b"caf\xe9"): b"1"}
    assert store.get(store.put(files)) == files


def test_an_id_is_of_the_content_alone(tmp_path):
    one, other = SnapshotStore(tmp_path / "a"), SnapshotStore(tmp_path / "b")
    assert one.put(FILES) == other.put(dict(reversed(FILES.items())))
    assert one.put(FILES) != one.put({**FILES, "empty": b"x"})
    assert one.put({"a": b"1"}) != one.put({"b": b"1"})


def test_equal_files_are_stored_once_and_compressed(tmp_path):
    store = SnapshotStore(tmp_path)
    store.put({"a.csv": b"0,1\n" * 100_000, "b.csv": b"0,1\n" * 100_000})
    store.put({"a.csv": b"0,1\n" * 100_000, "c.py": b"x"})
    assert len(blobs(tmp_path)) == 2
    assert max(path.stat().st_size for path in blobs(tmp_path)) < 10_000


def test_missing_and_damaged_blobs_are_named_and_mended_by_putting_again(tmp_path):
    store = SnapshotStore(tmp_path)
    snapshot = store.put({"a": b"some content"})
    (blob,) = blobs(tmp_path)
    whole = blob.read_bytes()
    for content in (whole[:-3], b"", b"junk", whole[:-1] + b"\0"):
        blob.write_bytes(content)
        with pytest.raises(SnapshotError, match=f"{blob.name} is damaged"):
            store.get(snapshot)
        assert store.put({"a": b"some content"}) == snapshot
        assert store.get(snapshot) == {"a": b"some content"}
    blob.unlink()
    with pytest.raises(SnapshotError, match=f"{blob.name} is missing") as caught:
        store.get(snapshot)
    assert isinstance(caught.value, UserError)


def test_an_unknown_workspace_is_named(tmp_path):
    with pytest.raises(SnapshotError, match=r"0123.* is missing"):
        SnapshotStore(tmp_path).get("0123")


def test_many_threads_and_stores_at_once(tmp_path):
    def put(number):
        return SnapshotStore(tmp_path).put({"same": b"x" * 1000, "own": b"%d" % (number % 5)})

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(put, range(80)))
    assert len(set(ids)) == 5
    assert SnapshotStore(tmp_path).get(ids[3]) == {"same": b"x" * 1000, "own": b"3"}
    assert len(blobs(tmp_path)) == 6


def _put_for_ever(root):
    store, number = SnapshotStore(root), 0
    while True:
        number += 1
        print_id = store.put({f"f{number}": os.urandom(20_000), "n": b"%d" % number})
        (root / "last").write_text(print_id)


def test_kill_9_leaves_nothing_to_repair(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_put_for_ever, args=(tmp_path,))
    process.start()
    while not (tmp_path / "workspaces").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    store = SnapshotStore(tmp_path)
    workspaces = [
        p for p in (tmp_path / "workspaces").rglob("*") if p.is_file() and not p.name.startswith(".")
    ]
    assert workspaces
    for path in workspaces:
        assert store.get(path.name)


def test_garbage_is_what_nobody_refers_to(tmp_path):
    store = SnapshotStore(tmp_path)
    kept = store.put({"a": b"shared", "b": b"of one"})
    gone = store.put({"a": b"shared", "c": b"of another"})
    cached = store.blobs.put(b"of an execution")
    assert store.collect_garbage({kept}, {cached}, grace_seconds=60) == (0, 0)  # stored just now
    count, size = store.collect_garbage({kept}, {cached}, grace_seconds=0)
    assert count == 2 and size > 0
    assert store.get(kept) == {"a": b"shared", "b": b"of one"}
    assert store.blobs.get(cached) == b"of an execution"
    with pytest.raises(SnapshotError, match="is missing"):
        store.get(gone)


def test_what_is_put_again_counts_as_new(tmp_path):
    store = SnapshotStore(tmp_path)
    snapshot = store.put(FILES)
    for path in tmp_path.rglob("*"):
        os.utime(path, (0, 0))
    assert store.put(FILES) == snapshot
    assert store.collect_garbage((), (), grace_seconds=60) == (0, 0)
