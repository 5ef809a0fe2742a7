"""What all backends have in common: the same jobs give the same results."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from sandboxes import QUICK, assert_settles, descendants, open_backend, require, script_job

from mlagent_jax.sandbox.interface import Job, Sandbox, Status

SKLEARN_SCRIPT = '''
"""A typical script."""
import os, sys, warnings
from dataclasses import dataclass
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

@dataclass
class Setting:
    trees: int = 5

print(Setting.__annotations__, warnings.filters)

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 4))
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    for model in (LogisticRegression(), RandomForestClassifier(Setting().trees, random_state=0)):
        print(type(model).__name__, cross_val_score(model, X, y, cv=3).round(6).tolist())
    warnings.warn("a warning of the script's", UserWarning)
    print(sys.argv, sys.path[0] == os.getcwd(), __name__, __file__ == os.path.abspath("train.py"))
    print("module", Setting.__module__, sys.modules["__main__"].Setting is Setting, __doc__)
    pd.DataFrame({"id": range(3), "y": model.fit(X, y).predict(X[:3])}).to_csv("submission.csv", index=False)
    left_open = open("left_open.txt", "w")
    left_open.write("flushed at exit")
'''


def test_equals_plain_python(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SKLEARN_SCRIPT)
    plain = subprocess.run(
        [sys.executable, "train.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PATH": os.environ["PATH"]},
        check=True,
    )
    result = sandbox.run(script_job(SKLEARN_SCRIPT))
    assert (result.status, result.exit_code, result.signal) == (Status.OK, 0, None)
    folder = result.output.partition("train.py:")[0].rpartition("\n")[2]  # of the script, in the warning
    assert result.output.replace(folder, f"{tmp_path}/") == plain.stdout
    for name in ("submission.csv", "left_open.txt", "train.py"):
        assert result.files[name] == (tmp_path / name).read_bytes()
    assert set(result.files) == {"submission.csv", "left_open.txt", "train.py"}


def test_output_names_no_folder_of_the_host(sandbox: Sandbox) -> None:
    result = sandbox.run(
        script_job(
            "import sys, json, warnings; print(sys.prefix, __file__); warnings.warn('!'); json.loads('')"
        )
    )
    assert result.status is Status.FAILED
    assert "/workspace/train.py:1: UserWarning: !" in result.output
    assert "/json/decoder.py" in result.output
    for folder in {
        sys.prefix,
        sys.base_prefix,
        os.path.realpath(sys.prefix),
        os.path.realpath(sys.base_prefix),
    }:
        assert folder.startswith("/usr") or folder not in result.output


@pytest.mark.parametrize(
    "source",
    [
        "import nothing_of_that_name",
        "def f():\n    return 1 / 0\n\nf()",
        "x = (1,\n",
        "raise SystemExit('words')",
        "raise SystemExit(3)",
        "import sys; sys.exit()",
        "try:\n    int('a')\nexcept ValueError as e:\n    raise KeyError('b') from e",
        "import threading\nthreading.Thread(target=lambda: print(1 / 0)).start()",
        "import atexit\natexit.register(print, 'at exit')\nprint('first')",
        "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__)\n1 / 0",
        "import os\nos._exit(5)",
        "assert False, 'é ☃'",
        "input()",
    ],
)
def test_ends_like_plain_python(sandbox: Sandbox, tmp_path: Path, source: str) -> None:
    (tmp_path / "train.py").write_text(source)
    plain = subprocess.run(
        [sys.executable, "train.py"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"},
    )
    result = sandbox.run(script_job(source))
    assert result.exit_code == plain.returncode
    assert result.status is (Status.OK if plain.returncode == 0 else Status.FAILED)
    ours = [line for line in result.output.splitlines() if 'File "' not in line]
    theirs = [line for line in plain.stdout.splitlines() if 'File "' not in line]
    assert ours == theirs
    assert result.output.count('File "') == plain.stdout.count('File "')


def test_shows_data_and_collects_files(sandbox: Sandbox, data_root: Path) -> None:
    source = """
import os, pathlib
print(open("data/train.csv").read(), open("data/deep/more.txt").read(), sorted(os.listdir(".")))
pathlib.Path("out/deep").mkdir(parents=True)
pathlib.Path("out/deep/a.bin").write_bytes(bytes(range(256)))
pathlib.Path("out/empty").touch()
pathlib.Path("out/link").symlink_to("/etc/passwd")
os.mkfifo("out/fifo")
pathlib.Path("out/unreadable").write_text("still there")
os.chmod("out/unreadable", 0)
os.chmod("out/deep", 0)
"""
    result = sandbox.run(script_job(source, data_dir=data_root / "mine"))
    assert result.status is Status.OK, result.output
    assert "mine-canary" in result.output
    assert result.output.endswith("mine ['data', 'train.py']\n")
    assert {name: blob for name, blob in result.files.items() if name != "train.py"} == {
        "out/deep/a.bin": bytes(range(256)),
        "out/empty": b"",
        "out/unreadable": b"still there",
    }


def test_runs_a_script_in_a_folder_with_other_modules(sandbox: Sandbox) -> None:
    files = {
        "src/train.py": b"import helper, os\nprint(helper.X, os.path.exists('src'))",
        "src/helper.py": b"X = 7",
    }
    result = sandbox.run(Job(files, "src/train.py", limits=QUICK))
    assert result.output == "7 True\n"
    assert result.files == files


def test_starts_each_job_in_a_fresh_environment(sandbox: Sandbox) -> None:
    first = sandbox.run(
        script_job(
            "import os, pandas, tempfile\npandas.leaked = os.environ['LEAKED'] = 'yes'\n"
            "open(tempfile.gettempdir() + '/leak', 'w').write('x')"
        )
    )
    assert first.status is Status.OK
    second = sandbox.run(
        script_job(
            "import os, pandas, tempfile\n"
            "print(hasattr(pandas, 'leaked'), 'LEAKED' in os.environ, 'leak' in os.listdir(tempfile.gettempdir()))"
        )
    )
    assert second.output == "False False False\n"


def test_unseeded_random_numbers_are_reproducible(sandbox: Sandbox) -> None:
    job = script_job("import random, numpy as np\nprint(random.random(), np.random.rand(), hash('a'))")
    assert sandbox.run(job).output == sandbox.run(job).output


def test_measures_time_and_memory(sandbox: Sandbox) -> None:
    source = """
import time
x = bytearray(300 << 20)
end = time.process_time() + 0.4
while time.process_time() < end:
    pass
time.sleep(.3)
"""
    result = sandbox.run(script_job(source))
    assert result.status is Status.OK
    assert 0.4 <= result.cpu_seconds < result.wall_seconds
    assert 300 <= result.peak_memory_mb <= 768


def test_interleaves_both_outputs(sandbox: Sandbox) -> None:
    source = """
import subprocess, sys
for i in range(3):
    print("out", i)
    print("err", i, file=sys.stderr)
subprocess.run(["echo", "child"])
"""
    assert sandbox.run(script_job(source)).output == "out 0\nerr 0\nout 1\nerr 1\nout 2\nerr 2\nchild\n"


def test_keeps_head_and_tail_of_a_long_output(sandbox: Sandbox) -> None:
    result = sandbox.run(script_job("print('first')\nprint('x' * 10_000_000)\nprint('last')"))
    assert result.status is Status.OK
    assert result.output.startswith("first\nxxx")
    assert result.output.endswith("xxx\nlast\n")
    assert len(result.output) <= QUICK.output_kb << 10
    kept = result.output.count("x")
    assert result.dropped_bytes == pytest.approx(10_000_000 - kept, abs=10)


def test_time_limit_keeps_what_was_printed_and_written(sandbox: Sandbox) -> None:
    source = "print('begun')\nopen('part.txt', 'w').write('half')\nwhile True: pass"
    result = sandbox.run(script_job(source, dataclasses.replace(QUICK, wall_seconds=3)))
    assert (result.status, result.output, result.files["part.txt"]) == (Status.TIMEOUT, "begun\n", b"half")
    assert result.wall_seconds >= 3


def test_runs_just_below_its_time_limit(sandbox: Sandbox) -> None:
    limits = dataclasses.replace(QUICK, wall_seconds=1.5)
    assert sandbox.run(script_job("import time; time.sleep(1.0)", limits)).status is Status.OK


def test_processor_limit(sandbox: Sandbox) -> None:
    limits = dataclasses.replace(QUICK, cpu_seconds=1)
    assert sandbox.run(script_job("while True: pass", limits)).status is Status.TIMEOUT


def test_refuses_a_file_outside_the_workspace(sandbox: Sandbox, data_root: Path) -> None:
    for name in ("../x", "/etc/x", "a/../../x", "", ".", "a//b", "data/train.csv", "train.py/x"):
        files = {"train.py": b"", name: b""}
        with pytest.raises(ValueError, match=r"path below|task's data|below another"):
            sandbox.run(Job(files, "train.py", data_root / "mine", "digest", QUICK))
    with pytest.raises(ValueError, match=r"script 'run.py' is not among"):
        sandbox.run(Job({"train.py": b""}, "run.py", limits=QUICK))


def test_refuses_data_outside_of_its_root(sandbox: Sandbox, data_root: Path) -> None:
    with pytest.raises(ValueError, match="not a folder below the sandbox's data root"):
        sandbox.run(script_job("", data_dir=data_root.parent))
    with pytest.raises(FileNotFoundError):
        sandbox.run(script_job("", data_dir=data_root / "missing"))


def test_more_files_than_fit_are_a_full_disk(sandbox: Sandbox) -> None:
    result = sandbox.run(Job({"train.py": b"", "big": bytes(9 << 20)}, "train.py", limits=QUICK))
    assert (result.status, result.exit_code) == (Status.DISK, None)


def test_more_threads_on_request(sandbox: Sandbox) -> None:
    source = """
import os, threadpoolctl
print(os.environ["OMP_NUM_THREADS"], {pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
"""
    assert sandbox.run(script_job(source)).output == "1 {1}\n"
    assert sandbox.run(script_job(source, dataclasses.replace(QUICK, threads=2))).output == "2 {2}\n"


def test_joblib_and_multiprocessing_work(sandbox: Sandbox) -> None:
    source = """
import multiprocessing as mp
from joblib import Parallel, delayed

def square(x):
    return x * x

if __name__ == "__main__":
    print(Parallel(n_jobs=2)(delayed(square)(i) for i in range(4)))
    for method in ("fork", "spawn"):
        with mp.get_context(method).Pool(2) as pool:
            print(pool.map(square, range(4)))
"""
    result = sandbox.run(script_job(source, dataclasses.replace(QUICK, processes=64)))
    assert result.output == "[0, 1, 4, 9]\n" * 3


def test_serves_several_threads_at_once(data_root: Path) -> None:
    with open_backend("process", data_root, workers=2, preload=()) as pool:
        results = {}

        def run(number: int) -> None:
            results[number] = pool.run(script_job(f"import time; time.sleep(0.2); print({number})"))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {number: result.output for number, result in results.items()} == {
            n: f"{n}\n" for n in range(6)
        }


@pytest.mark.parametrize("backend", ["bubblewrap", "process"])
def test_a_dead_worker_is_replaced(backend: str, data_root: Path) -> None:
    before = descendants()
    with open_backend(backend, data_root, preload=()) as pool:
        assert pool.run(script_job("print(1)")).output == "1\n"
        workers = descendants() - before
        assert workers
        for pid in workers:
            with suppress(ProcessLookupError):  # some die with another
                os.kill(pid, 9)
        assert pool.run(script_job("print(2)")).output == "2\n"
    assert descendants() <= before


@pytest.mark.parametrize("backend", ["bubblewrap", "process"])
def test_nothing_outlives_a_host_that_is_killed(backend: str, data_root: Path, tmp_path: Path) -> None:
    require(backend)  # skip here, not in the other process
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from sandboxes import open_backend, script_job
sandbox = open_backend({backend!r}, Path({str(data_root)!r}), preload=())
print(sandbox.run(script_job("print('ready')")).output, flush=True)
sandbox.run(script_job("import os, time\\nos.fork() or os.setsid()\\ntime.sleep(15)"))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"ready\n"
        time.sleep(0.5)
        alive = descendants(host.pid)
        assert len(alive) >= 3
        host.kill()
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline and any(_is_running(pid) for pid in alive):
        time.sleep(0.05)
    assert not [pid for pid in alive if _is_running(pid)]
    assert not list(tmp_path.iterdir())


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("backend", ["bubblewrap", "docker", "process"])
def test_closing_ends_a_running_job(backend: str, data_root: Path) -> None:
    before = descendants()
    pool = open_backend(backend, data_root, preload=())
    assert pool.run(script_job("print(1)")).output == "1\n"
    results = []
    waiting = threading.Thread(
        target=lambda: results.append(pool.run(script_job("import time; time.sleep(600)")))
    )
    waiting.start()
    time.sleep(0.5)
    pool.close()
    waiting.join(120)
    assert results[0].status is Status.SANDBOX_ERROR
    assert pool.run(script_job("")).error == "the sandbox is closed"
    assert_settles(before)
