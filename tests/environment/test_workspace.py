"""Paths that tools may use, and what they see."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagent_jax.environment.workspace import (
    MAX_FILE_BYTES,
    MAX_FILES,
    WorkspaceError,
    clean_path,
    inspect_lines,
    list_files,
    read_bytes,
    read_text,
    with_file,
    writable_path,
)


@pytest.mark.parametrize(
    ("given", "clean"),
    [("train.py", "train.py"), (" ./train.py ", "train.py"), ("a//b/", "a/b"), ("", "."), (".", ".")],
)
def test_paths_have_one_form(given, clean):
    assert clean_path(given) == clean


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "..", "a/../../b", "data/..", "a\\b", "a\nb", "a\0b", "x" * 121]
)
def test_paths_that_leave_or_cannot_be(path):
    with pytest.raises(WorkspaceError):
        clean_path(path)


@given(st.text(max_size=130))
def test_no_path_gets_out(path):
    try:
        clean = clean_path(path)
    except WorkspaceError:
        return
    assert not clean.startswith("/") and ".." not in clean.split("/") and clean_path(clean) == clean


@pytest.mark.parametrize("path", ["data", "data/x", "./data/x", "submission.csv", ".", "data//x"])
def test_what_tools_may_not_write(path):
    with pytest.raises(WorkspaceError):
        writable_path(path)


def test_writing_keeps_files_and_folders_apart_and_within_limits():
    files = {"a/b.py": b"", "c.py": b""}
    assert with_file(files, "a/d.py", b"x") == {**files, "a/d.py": b"x"}
    for path in ("a", "c.py/x"):
        with pytest.raises(WorkspaceError):
            with_file(files, path, b"")
    with pytest.raises(WorkspaceError, match="bytes"):
        with_file(files, "big", b"x" * (MAX_FILE_BYTES + 1))
    full = {str(number): b"" for number in range(MAX_FILES)}
    assert with_file(full, "0", b"new")["0"] == b"new"
    with pytest.raises(WorkspaceError, match="full"):
        with_file(full, "more", b"")


def test_reading(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"id\n1\n")
    files = {"train.py": b"x", "model.bin": b"\xff", "big": b"x" * (MAX_FILE_BYTES + 1)}
    assert read_bytes(files, "data/train.csv", tmp_path) == b"id\n1\n"
    assert read_text(files, "train.py", tmp_path) == "x"
    with pytest.raises(WorkspaceError, match="not a text file"):
        read_text(files, "model.bin", tmp_path)
    with pytest.raises(WorkspaceError, match="too large"):
        read_text(files, "big", tmp_path)
    with pytest.raises(WorkspaceError, match=r"no 'tarin.py'; files: big, model.bin, train.py"):
        read_text(files, "tarin.py", tmp_path)
    with pytest.raises(WorkspaceError, match="no 'data'"):
        read_bytes(files, "data", tmp_path)


def test_lines_of_data_files_too_large_to_read_whole(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"id\r\n" + b"1\r\n" * MAX_FILE_BYTES)
    assert inspect_lines({}, "data/train.csv", 1, 2, tmp_path) == "1 id\n2 1"
    with pytest.raises(WorkspaceError, match="too large"):
        read_bytes({}, "data/train.csv", tmp_path)


def test_listing_shows_one_level(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "train.csv").write_text("")
    files = {"train.py": b"", "old/a.py": b"", "old/deep/b.py": b""}
    assert list_files(files, ".", tmp_path) == ["data/", "old/", "train.py"]
    assert list_files(files, "old", tmp_path) == ["a.py", "deep/"]
    assert list_files(files, "data", tmp_path) == ["images/", "train.csv"]
    for absent in ("train.py", "ol", "data/absent"):
        with pytest.raises(WorkspaceError, match="no '"):
            list_files(files, absent, tmp_path)
