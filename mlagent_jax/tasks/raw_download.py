"""Raw data that need an account or come from their authors: one archive, checked and unpacked once.

    CACHE/raw/NAME/ARCHIVE       as the Kaggle CLI or a browser downloads it; checked by its MD5 if that is known
    CACHE/raw/NAME/unpacked/     what preparation reads; may also be unpacked by hand. Its layout is checked, and its
                                 columns and numbers of rows by `competition`

CACHE is the cache folder of preparation, or the data root. Sandboxes never see any of this.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mlagent_jax.errors import UserError

if TYPE_CHECKING:
    from mlagent_jax.tasks.preparation import RawFiles

FETCH_SECONDS = 6 * 3600
CONNECT_SECONDS = 60


class RawDataError(UserError):
    """Raw data are missing or not the expected ones. The message says what to do."""


@dataclass(frozen=True)
class Archive:
    """The archive that holds the raw data of a task.

    name: of its folder in the cache.
    wanted: the files and folders that preparation reads, relative to the archive's root; only these are unpacked.
    nested: archives inside it (.zip or .7z) that hold some of `wanted`; they are unpacked in place.
    md5: "" if unknown.
    """

    name: str
    wanted: tuple[str, ...]
    md5: str = ""
    nested: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The file name of the archive."""
        raise NotImplementedError

    def by_hand(self) -> str:
        """How a person gets the archive, as a clause in the imperative."""
        raise NotImplementedError

    def fetch(self, folder: Path) -> None:
        """Downloads the archive into `folder`. Raises RawDataError."""
        raise NotImplementedError

    def unpack(self, files: RawFiles) -> Path:
        """The folder with everything in `wanted`, downloaded and unpacked if needed. Raises RawDataError."""
        folder = files.cache_dir / "raw" / self.name
        unpacked = folder / "unpacked"
        archive = folder / self.file
        try:
            if not unpacked.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                if not archive.is_file():
                    self._fetch_into(folder)
                self._check_hash(archive)
                self._unpack_into(archive, unpacked)
            self._check_layout(unpacked)
            read = [path for path in self.wanted if (unpacked / path).is_file()]
            files.sources += [{"file": path, "sha256": _digest(unpacked / path, "sha256")} for path in read]
        except OSError as error:
            raise RawDataError(f"cannot store or read raw data in {folder}: {error}") from error
        return unpacked

    def _fetch_into(self, folder: Path) -> None:
        """Downloads the archive, which gets its name only once it is complete."""
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            self.fetch(Path(temporary))
            if not (Path(temporary) / self.file).is_file():
                found = sorted(path.name for path in Path(temporary).iterdir()) or ["nothing"]
                raise RawDataError(
                    f"the download of {self.name} produced {', '.join(found)}, expected {self.file};"
                    f" {self.by_hand()} and put it into {folder}"
                )
            (Path(temporary) / self.file).replace(folder / self.file)

    def _check_hash(self, archive: Path) -> None:
        if not self.md5:
            return
        found = _digest(archive, "md5")
        if found != self.md5:
            raise RawDataError(
                f"{archive} ({archive.stat().st_size:,} bytes) has the MD5 {found}, expected {self.md5}: an incomplete"
                f" download, or another version. Remove it to download it again. If the MD5 is the same again and you"
                f" trust the file, unpack it by hand into {archive.parent / 'unpacked'} ({_listed(self.wanted)}), of"
                " which only the layout is checked"
            )

    def _unpack_into(self, archive: Path, unpacked: Path) -> None:
        """Unpacks all or nothing: no other process, and none after a kill, sees a part of it."""
        with tempfile.TemporaryDirectory(dir=unpacked.parent, prefix=".unpack-") as name:
            temporary = Path(name) / "unpacked"
            temporary.mkdir()
            _extract(archive, temporary, (*self.wanted, *self.nested))
            for inner in self.nested:
                if not (temporary / inner).is_file():
                    raise self._other_layout(archive, inner)
                _extract(temporary / inner, (temporary / inner).parent, self.wanted, of=archive)
                (temporary / inner).unlink()
            for path in self.wanted:
                if not (temporary / path).exists():
                    raise self._other_layout(archive, path)
            try:
                temporary.rename(unpacked)
            except OSError:
                if not unpacked.is_dir():  # otherwise another process was first
                    raise

    def _other_layout(self, archive: Path, missing: str) -> RawDataError:
        return RawDataError(
            f"{archive} lacks {missing}; it has {_listed(_names(archive)) or 'nothing'}: another archive or another"
            f" version. Remove it to download it again, or unpack it by hand into {archive.parent / 'unpacked'}, which"
            f" must have {_listed(self.wanted)}"
        )

    def _check_layout(self, unpacked: Path) -> None:
        missing = [path for path in self.wanted if not (unpacked / path).exists()]
        if missing:
            found = sorted(path.name for path in unpacked.iterdir())
            raise RawDataError(
                f"raw data of {self.name} lack {missing[0]}: {unpacked} has {_listed(found) or 'nothing'},"
                f" expected {_listed(self.wanted)}; unpack inner archives too, or remove that folder"
            )


class KaggleArchive(Archive):
    """The files of a Kaggle competition. `name` is the one in its URL."""

    @property
    def file(self) -> str:
        return f"{self.name}.zip"

    def by_hand(self) -> str:
        return (
            f"accept the rules at {self._page}/rules, download all files by hand at {self._page}/data as"
            f" {self.file}"
        )

    @property
    def _page(self) -> str:
        return f"https://www.kaggle.com/competitions/{self.name}"

    def fetch(self, folder: Path) -> None:
        kaggle, final = shutil.which("kaggle"), folder.parent
        by_hand = f"or {self.by_hand()}, and put it into {final}"
        if kaggle is None:
            raise RawDataError(
                f"raw data of {self.name} are not in {final}, and there is no `kaggle` command to fetch them:"
                f" `pip install kaggle`, accept the rules at {self._page}/rules and put an API token from"
                f" https://www.kaggle.com/settings into ~/.kaggle/kaggle.json; {by_hand}"
            )
        command = [kaggle, "competitions", "download", "-q", "-c", self.name, "-p", str(folder)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=FETCH_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise RawDataError(
                f"the download of {self.name} did not finish within {FETCH_SECONDS} s; {by_hand}"
            ) from None
        if done.returncode:
            output = f"{done.stdout}\n{done.stderr}".strip()
            raise RawDataError(
                f"Kaggle did not provide the raw data of {self.name}: {self._remedy(output)}; {by_hand}."
                f" The command's output: {output[-300:] or 'nothing'}"
            )

    def _remedy(self, output: str) -> str:
        lower = output.lower()
        if "403" in output or "forbidden" in lower:
            return f"accept the competition's rules at {self._page}/rules with the token's account"
        if any(
            word in lower for word in ("401", "unauthorized", "authenticate", "kaggle.json", "credential")
        ):
            return (
                "there are no valid credentials; create an API token at https://www.kaggle.com/settings and put it"
                " into ~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY"
            )
        return "check the network and the disk"


@dataclass(frozen=True)
class UrlArchive(Archive):
    """An archive that its authors publish at a URL, without an account."""

    url: str = ""

    @property
    def file(self) -> str:
        return PurePosixPath(self.url).name

    def by_hand(self) -> str:
        return f"download {self.url}"

    def fetch(self, folder: Path) -> None:
        try:
            with (
                urllib.request.urlopen(self.url, timeout=CONNECT_SECONDS) as response,
                (folder / self.file).open("wb") as file,
            ):
                shutil.copyfileobj(response, file)
                length = response.headers.get("Content-Length")
                if length and int(length) != file.tell():
                    raise RawDataError(
                        f"the download of {self.url} stopped after {file.tell():,} of {int(length):,} bytes; try again"
                    )
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise RawDataError(
                f"cannot fetch the raw data of {self.name}: {error}; check the network, or {self.by_hand()} by"
                f" hand and put {self.file} into {folder.parent}"
            ) from error


def _extract(archive: Path, folder: Path, wanted: tuple[str, ...], of: Path | None = None) -> None:
    """Unpacks the wanted members of a .zip, .7z or .tar.gz; never those whose names lead out of `folder`.

    of: the archive that contained this one, for error messages.
    """
    named = f"{archive.name} in {of}" if of else str(archive)

    def is_wanted(name: str) -> bool:
        path = PurePosixPath(name)
        return ".." not in path.parts and any(path.is_relative_to(prefix) for prefix in wanted)

    try:
        if archive.suffix == ".7z":
            _extract_7z(archive, folder, named)
        elif archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(folder, [name for name in zipped.namelist() if is_wanted(name)])
        else:
            with tarfile.open(archive) as tar:
                members = [member for member in tar.getmembers() if is_wanted(member.name)]
                tar.extractall(folder, members, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError) as error:
        raise RawDataError(
            f"cannot unpack {named}: {error}; it may be an incomplete download: remove it to download it again"
        ) from error


def _names(archive: Path) -> list[str]:
    """The names of the files in a .zip or .tar.gz."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as zipped:
            return zipped.namelist()
    with tarfile.open(archive) as tar:
        return tar.getnames()


def _extract_7z(archive: Path, folder: Path, named: str) -> None:
    if importlib.util.find_spec("py7zr") is None:
        raise RawDataError(
            f"{named} needs py7zr to be unpacked: `pip install 'mlagent-jax[paper]'`, or `pip install py7zr`"
        )
    import py7zr

    try:
        with py7zr.SevenZipFile(archive) as packed:
            packed.extractall(folder)
    except py7zr.exceptions.ArchiveError as error:
        raise RawDataError(
            f"cannot unpack {named}: {error}; remove the archive to download it again"
        ) from error


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, name).hexdigest()


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
