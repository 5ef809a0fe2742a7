"""Raw data that need an account or are fetched from their authors: one archive, checked, unpacked once.

    CACHE/raw/NAME/ARCHIVE       as the Kaggle CLI or a browser downloads it, checked by its MD5 where one is known
    CACHE/raw/NAME/unpacked/     what preparation reads; may be laid out by hand instead, and then is checked by
                                 its layout and, in `competition`, by its columns and numbers of rows

CACHE is the cache folder of preparation, else the data root. Nothing here is ever shown to a sandbox.
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
    """Raw data are not there, or are not what they should be. Says what to do."""


@dataclass(frozen=True)
class Archive:
    """An archive that a task's raw data come in.

    name: of its folder in the cache. wanted: files and folders that preparation reads, below the archive's
    root; nothing else is unpacked. nested: archives in it (.zip or .7z) that hold some of those, unpacked
    where they lie. md5: "" if none is known.
    """

    name: str
    wanted: tuple[str, ...]
    md5: str = ""
    nested: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The archive's file name."""
        raise NotImplementedError

    def by_hand(self) -> str:
        """How a person gets the archive, as a clause."""
        raise NotImplementedError

    def fetch(self, folder: Path) -> None:
        """Puts the archive into `folder`. Raises RawDataError."""
        raise NotImplementedError

    def unpack(self, files: RawFiles) -> Path:
        """The folder with everything `wanted`, fetched and unpacked if it isn't there. Raises RawDataError."""
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
            raise RawDataError(f"cannot keep or read raw data in {folder}: {error}") from error
        return unpacked

    def _fetch_into(self, folder: Path) -> None:
        """The archive appears under its name only once it is whole."""
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            self.fetch(Path(temporary))
            if not (Path(temporary) / self.file).is_file():
                found = sorted(path.name for path in Path(temporary).iterdir()) or ["nothing"]
                raise RawDataError(
                    f"the download of {self.name} brought {', '.join(found)}, expected {self.file};"
                    f" {self.by_hand()} and put it into {folder}"
                )
            (Path(temporary) / self.file).replace(folder / self.file)

    def _check_hash(self, archive: Path) -> None:
        if not self.md5:
            return
        found = _digest(archive, "md5")
        if found != self.md5:
            raise RawDataError(
                f"{archive} ({archive.stat().st_size:,} bytes) has the MD5 {found}, expected {self.md5}: half a"
                f" download, or another version. Remove it to fetch it again. If it comes out the same and you"
                f" trust it, unpack it by hand into {archive.parent / 'unpacked'} ({_listed(self.wanted)}),"
                " which is checked by its layout instead"
            )

    def _unpack_into(self, archive: Path, unpacked: Path) -> None:
        """All or nothing: another process, or one after a kill, never sees half."""
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
                if not unpacked.is_dir():  # else another process was first
                    raise

    def _other_layout(self, archive: Path, missing: str) -> RawDataError:
        return RawDataError(
            f"{archive} lacks {missing}; it has {_listed(_names(archive)) or 'nothing'}: another archive or another"
            f" version. Remove it to fetch it again, or unpack it by hand into {archive.parent / 'unpacked'}, so that"
            f" there are {_listed(self.wanted)}"
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
    """The files of a Kaggle competition, whose name is that in its address."""

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
                f"the download of {self.name} was not done after {FETCH_SECONDS} s; {by_hand}"
            ) from None
        if done.returncode:
            said = f"{done.stdout}\n{done.stderr}".strip()
            raise RawDataError(
                f"Kaggle gave no raw data of {self.name}: {self._remedy(said)}; {by_hand}."
                f" The command said: {said[-300:] or 'nothing'}"
            )

    def _remedy(self, said: str) -> str:
        lower = said.lower()
        if "403" in said or "forbidden" in lower:
            return f"accept the competition's rules at {self._page}/rules with the token's account"
        if any(
            sign in lower for sign in ("401", "unauthorized", "authenticate", "kaggle.json", "credential")
        ):
            return (
                "there are no valid credentials; create an API token at https://www.kaggle.com/settings and put it"
                " into ~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY"
            )
        return "check the network and the disk"


@dataclass(frozen=True)
class UrlArchive(Archive):
    """An archive that its authors offer at an address, without an account."""

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
                        f"{self.url} broke off after {file.tell():,} of {int(length):,} bytes; try again"
                    )
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise RawDataError(
                f"cannot fetch the raw data of {self.name}: {error}; check the network, or {self.by_hand()} by"
                f" hand and put {self.file} into {folder.parent}"
            ) from error


def _extract(archive: Path, folder: Path, wanted: tuple[str, ...], of: Path | None = None) -> None:
    """What is wanted of a .zip, .7z or .tar.gz. Names that would leave `folder` are not wanted.

    of: the archive that this one lay in, which is the one to name.
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
            f"cannot unpack {named}: {error}; it may be half a download: remove it to fetch it again"
        ) from error


def _names(archive: Path) -> list[str]:
    """Of the files in a .zip or .tar.gz that could be unpacked."""
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
        raise RawDataError(f"cannot unpack {named}: {error}; remove the archive to fetch it again") from error


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, name).hexdigest()


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
