"""Package files fetched by pip offline: a hand-made wheel in a local folder stands in for the index."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from wheels import sha256, write_wheel

from mlagent_jax.packages import PackageError, PackageReader, default_cache_dir, fetch_wheel

MEMBER = "tinydata/table.csv"
CONTENT = b"a,b\n1,2\n"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel in the only place where pip may look."""
    folder = tmp_path / "index"
    path = write_wheel(folder, "tinydata", "1.0", {MEMBER: CONTENT})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return path


def test_reads_a_member_and_remembers_it(wheel, tmp_path):
    reader = PackageReader(tmp_path / "cache")
    assert reader.from_wheel("tinydata", "1.0", sha256(wheel), MEMBER) == CONTENT
    assert reader.sources == [{"package": "tinydata==1.0", "member": MEMBER, "wheel_sha256": sha256(wheel)}]


def test_a_second_read_needs_no_index(wheel, tmp_path):
    pinned = sha256(wheel)
    fetch_wheel("tinydata", "1.0", pinned, tmp_path / "cache")
    wheel.unlink()
    assert PackageReader(tmp_path / "cache").from_wheel("tinydata", "1.0", pinned, MEMBER) == CONTENT


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(wheel, tmp_path):
    with pytest.raises(
        PackageError, match=f"is not the pinned file: its sha256 is {sha256(wheel)}, expected 00"
    ):
        fetch_wheel("tinydata", "1.0", "0" * 64, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_damaged_file_in_the_cache_is_fetched_again(wheel, tmp_path):
    cached = fetch_wheel("tinydata", "1.0", sha256(wheel), tmp_path / "cache")
    cached.write_bytes(cached.read_bytes()[:50])
    assert sha256(fetch_wheel("tinydata", "1.0", sha256(wheel), tmp_path / "cache")) == sha256(wheel)


def test_what_pip_says_is_passed_on(wheel, tmp_path):
    with pytest.raises(
        PackageError, match=r"cannot fetch tinydata==9\.9: pip says .*tinydata==9\.9.*network"
    ):
        fetch_wheel("tinydata", "9.9", "0" * 64, tmp_path / "cache")


def test_a_member_that_is_not_there_is_named(wheel, tmp_path):
    with pytest.raises(PackageError, match=r"cannot read tinydata/none\.csv from .*tinydata-1\.0"):
        PackageReader(tmp_path / "cache").from_wheel("tinydata", "1.0", sha256(wheel), "tinydata/none.csv")


def test_a_cache_that_cannot_be_written_is_named(wheel, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(PackageError, match="choose another folder for the data cache"):
        fetch_wheel("tinydata", "1.0", sha256(wheel), tmp_path / "cache")


def test_a_python_without_pip_is_told_how_to_get_it(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    code = (
        "from pathlib import Path\n"
        "from mlagent_jax.packages import PackageError, fetch_wheel\n"
        "try:\n    fetch_wheel('tinydata', '1.0', '0' * 64, Path('cache'))\n"
        "except PackageError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "has no pip; add it with" in done.stdout, done.stderr


def test_an_installed_file_is_read_without_an_import(tmp_path):
    digits = "datasets/data/digits.csv.gz"
    with pytest.raises(PackageError, match=r"cannot read no\.csv of the installed sklearn"):
        PackageReader(tmp_path).from_installed("sklearn", "no.csv", "")
    with pytest.raises(PackageError, match="package tinydata is not installed"):
        PackageReader(tmp_path).from_installed("tinydata", "no.csv", "")
    with pytest.raises(PackageError, match="is not the pinned file"):
        PackageReader(tmp_path).from_installed("sklearn", digits, "0" * 64)
    code = (
        "import sys\nfrom pathlib import Path\nfrom mlagent_jax.packages import PackageReader\n"
        f"assert PackageReader(Path('.')).from_installed('sklearn', '{digits}', sys.argv[1])\n"
        "assert 'sklearn' not in sys.modules\n"
    )
    pinned = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
    subprocess.run([sys.executable, "-c", code, pinned], check=True, cwd=Path(__file__).parents[1])


def test_the_cache_follows_xdg(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert default_cache_dir() == Path("/some/where/mlagent-jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_cache_dir() == Path("/home/ada/.cache/mlagent-jax")


NPM = """\
#!/bin/sh
case "$4" in
  tinydata@1.0.0) cp {tarball} tinydata-1.0.0.tgz;;
  *) echo "npm error 404 '$4' is not in this registry." >&2; exit 1;;
esac
"""


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A tarball, and an `npm` that returns it for tinydata 1.0.0."""
    tarball = tmp_path / "published.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        info = tarfile.TarInfo("package/table.csv")
        info.size = len(CONTENT)
        archive.addfile(info, io.BytesIO(CONTENT))
        link = tarfile.TarInfo("package/link.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "npm"
    program.write_text(NPM.format(tarball=tarball))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tarball


def test_reads_a_member_of_an_npm_package_once_fetched(npm, tmp_path):
    reader, pinned = PackageReader(tmp_path / "cache"), sha256(npm)
    assert reader.from_npm("tinydata", "1.0.0", pinned, ["package/table.csv"]) == [CONTENT]
    npm.unlink()
    assert reader.from_npm("tinydata", "1.0.0", pinned, ["package/table.csv"]) == [CONTENT]
    assert reader.sources[0] == {
        "package": "npm:tinydata@1.0.0",
        "member": "package/table.csv",
        "tarball_sha256": pinned,
    }


def test_what_npm_cannot_give_is_named(npm, tmp_path, monkeypatch):
    reader, pinned = PackageReader(tmp_path / "cache"), sha256(npm)
    with pytest.raises(PackageError, match=r"npm says .*404 'none@1.0.0' is not in this registry"):
        reader.from_npm("none", "1.0.0", pinned, ["package/table.csv"])
    with pytest.raises(PackageError, match="is not the pinned file"):
        reader.from_npm("tinydata", "1.0.0", "0" * 64, ["package/table.csv"])
    for member in ("package/none.csv", "package/link.csv"):
        with pytest.raises(PackageError, match=f"cannot read {member} from .*: there is no such file"):
            reader.from_npm("tinydata", "1.0.0", pinned, [member])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PackageError, match="npm is not installed; install it"):
        reader.from_npm("other", "1.0.0", pinned, ["package/table.csv"])


def test_the_pinned_wheel_may_be_of_another_platform(wheel, tmp_path):
    foreign = wheel.rename(wheel.with_name("tinydata-1.0-cp39-cp39-win_amd64.whl"))
    with pytest.raises(PackageError, match="pip says"):
        fetch_wheel("tinydata", "1.0", sha256(foreign), tmp_path / "cache")
    fetched = fetch_wheel("tinydata", "1.0", sha256(foreign), tmp_path / "cache", "cp39-cp39-win_amd64")
    assert fetched.name == foreign.name
