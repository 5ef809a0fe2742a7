"""Raw archives: whatever is missing or wrong, the error is one sentence with the remedy."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from paper_raw import csv, write_archive, zipped

from mlagent_jax.tasks.competition import read_table
from mlagent_jax.tasks.preparation import RawFiles, prepare_task
from mlagent_jax.tasks.raw_download import KaggleArchive, RawDataError, UrlArchive

TASKS_DIR = Path(__file__).parents[3] / "tasks"
TABLE = csv(pd.DataFrame({"id": range(10), "y": range(10)}))
LAYOUT = {"train.csv": TABLE, "test.zip": b"never looked at", "images.zip": zipped({"images/1.png": b"1"})}


def archive(md5: str = "") -> KaggleArchive:
    return KaggleArchive("toys", wanted=("train.csv", "images"), nested=("images.zip",), md5=md5)


@pytest.fixture
def files(tmp_path):
    return RawFiles(tmp_path, tmp_path / "task")


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """Installs a `kaggle` command that does what a test says."""

    def install(script: str) -> None:
        command = tmp_path / "bin" / "kaggle"
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")

    return install


def folder(files: RawFiles) -> Path:
    return files.cache_dir / "raw" / "toys"


def test_unpacks_what_is_wanted_and_remembers_its_hash(files):
    write_archive(folder(files) / "toys.zip", LAYOUT)
    unpacked = archive().unpack(files)
    found = sorted(str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file())
    assert found == ["images/1.png", "train.csv"]
    assert files.sources == [{"file": "train.csv", "sha256": hashlib.sha256(TABLE).hexdigest()}]
    (folder(files) / "toys.zip").unlink()
    assert archive().unpack(files) == unpacked  # once is enough


def test_fetches_with_kaggles_own_command(files, kaggle, tmp_path):
    write_archive(tmp_path / "toys.zip", LAYOUT)
    kaggle(f'[ "$1 $2 $3 $4 $5 $6" = "competitions download -q -c toys -p" ] && cp {tmp_path}/toys.zip "$7/"')
    digest = hashlib.md5((tmp_path / "toys.zip").read_bytes()).hexdigest()
    assert (archive(digest).unpack(files) / "train.csv").read_bytes() == TABLE


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo '403 Client Error: Forbidden' >&2; exit 1",
            "accept the competition's rules at .*/toys/rules with",
        ),
        ("echo '401 - Unauthorized' >&2; exit 1", "no valid credentials; create an API token .*kaggle.json"),
        ("echo 'Could not find kaggle.json' >&2; exit 1", "no valid credentials"),
        ("echo 'Name or service not known'; exit 1", "check the network.*output: Name or service not known"),
        ("exit 0", "produced nothing, expected toys.zip"),
    ],
)
def test_says_what_kaggle_wants(files, kaggle, script, said):
    kaggle(script)
    with pytest.raises(RawDataError, match=said):
        archive().unpack(files)
    assert list(folder(files).iterdir()) == []  # no partial files are left


def test_says_how_to_do_without_the_command(files, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        RawDataError, match=r"pip install kaggle.*toys/rules.*by hand at .* as toys.zip"
    ) as caught:
        archive().unpack(files)
    assert str(folder(files)) in str(caught.value)


def test_half_a_download_is_refused_and_left_for_its_owner(files):
    write_archive(folder(files) / "toys.zip", LAYOUT)
    whole = (folder(files) / "toys.zip").read_bytes()
    (folder(files) / "toys.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RawDataError, match=r"cannot unpack .*toys\.zip"):
        archive().unpack(files)
    with pytest.raises(
        RawDataError, match=r"expected .*: an incomplete download.*Remove it to download it again"
    ):
        archive(hashlib.md5(whole).hexdigest()).unpack(files)
    assert [path.name for path in folder(files).iterdir()] == ["toys.zip"]


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"train.csv": TABLE}, "lacks images.zip"),
        ({"images.zip": LAYOUT["images.zip"]}, "lacks train.csv; it has images.zip"),
        (
            {**LAYOUT, "images.zip": b"not a zip"},
            r"cannot unpack images\.zip in .*/raw/toys/toys\.zip: .* remove it",
        ),
        (
            {"toys/train.csv": TABLE, "images.zip": LAYOUT["images.zip"]},
            "toys.zip lacks train.csv; it has toys/train.csv, images.zip: .* by hand into .*/raw/toys/unpacked",
        ),
    ],
)
def test_another_layout_is_named(files, layout, said):
    write_archive(folder(files) / "toys.zip", layout)
    with pytest.raises(RawDataError, match=said):
        archive().unpack(files)
    assert [path.name for path in folder(files).iterdir()] == ["toys.zip"]


def test_what_was_laid_out_by_hand_is_taken_and_checked(files):
    by_hand = folder(files) / "unpacked"
    (by_hand / "images").mkdir(parents=True)
    with pytest.raises(RawDataError, match=r"lack train.csv: .* has images, expected train.csv, images"):
        archive("0" * 32).unpack(files)
    (by_hand / "train.csv").write_bytes(TABLE)
    assert archive("0" * 32).unpack(files) == by_hand


def test_names_that_leave_the_folder_are_not_unpacked(files):
    write_archive(folder(files) / "toys.zip", {**LAYOUT, "images/../../../evil.txt": b"x"})
    archive().unpack(files)
    assert not list(files.cache_dir.rglob("evil.txt"))


@pytest.fixture
def served(tmp_path):
    """A loopback URL that serves tmp_path/served."""
    (tmp_path / "served").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    handler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_fetches_from_an_address(files, served, tmp_path):
    write_archive(tmp_path / "served" / "toys.tar.gz", {"toys/train.csv": TABLE})
    found = UrlArchive("toys", wanted=("toys/train.csv",), url=f"{served}/toys.tar.gz").unpack(files)
    assert (found / "toys" / "train.csv").read_bytes() == TABLE
    with pytest.raises(RawDataError, match=r"cannot fetch .*404.* by hand and put others\.zip into"):
        UrlArchive("others", wanted=("x",), url=f"{served}/others.zip").unpack(files)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TABLE, "lacks the column 'z'"),
        (b"", "cannot read the raw table"),
        (b"id,y,z\n1,2,3\n", "has 1 rows, expected 10"),
        ("id,y,z\né,2,3\n".encode("latin-1"), "cannot read the raw table"),
    ],
)
def test_a_raw_table_is_checked(tmp_path, content, said):
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(RawDataError, match=said):
        read_table(tmp_path / "train.csv", ("id", "y", "z"), rows=10)


def test_a_task_of_the_paper_without_data_says_how_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RawDataError, match="competitions/spaceship-titanic/rules"):
        prepare_task("spaceship-titanic", TASKS_DIR, tmp_path)
    assert not (tmp_path / "public").exists()
