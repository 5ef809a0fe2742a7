"""Trackers: what they store, what a resumed run adds to it, and what happens to one that fails."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlagent_jax.errors import UserError
from mlagent_jax.parallel import distributed
from mlagent_jax.tracking import tracker
from mlagent_jax.tracking.backend import Stage
from mlagent_jax.tracking.tracker import TRACKERS, Tracking

ROOT = Path(__file__).parents[2]
TRACK = Path(__file__).with_name("track.py")


def require(name: str) -> None:
    """Skips without the tracker's package, or fails where MLAGENT_REQUIRE names `trackers`."""
    if name == "tensorboard" or importlib.util.find_spec(name):
        return
    if "trackers" in os.environ.get("MLAGENT_REQUIRE", ""):
        pytest.fail(f"MLAGENT_REQUIRE names trackers, but {name} is missing")
    pytest.skip(f"needs {name}: pip install -e '.[{name}]'")


def track(
    name: str, folder: Path, start: int, stop: int, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """In a process of its own, without a network, and with all that the tracker stores below `folder`."""
    places = {
        variable: str(folder.parent / "user" / variable.lower())
        for variable in (
            *("HOME", "TRACKIO_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
            *("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"),
        )
    }
    for place in places.values():
        Path(place).mkdir(parents=True, exist_ok=True)
    offline = {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = os.environ | places | offline | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    for variable in ("MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID", "WANDB_PROJECT"):
        environment.pop(variable, None)
    return subprocess.run(
        [sys.executable, str(TRACK), name, str(folder), str(start), str(stop), *arguments],
        capture_output=True,
        text=True,
        cwd=folder.parent,
        env=environment,
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_killed_and_resumed_stage_is_stored_once_and_whole(name, tmp_path):
    """The real packages in their offline modes. Step 3 is logged, but the checkpoint to resume from is of step 2."""
    require(name)
    folder = tmp_path / "toy" / "sft"
    folder.mkdir(parents=True)
    assert track(name, folder, 0, 3, "kill").returncode == -9
    assert [record["step"] for record in lines(folder)] == [1, 2, 3]
    done = track(name, folder, 2, 4)
    assert done.returncode == 0 and "failed" not in done.stderr, done.stderr[-3000:]
    assert [record["step"] for record in lines(folder)] == [1, 2, 3, 4]
    stored = json.loads(done.stdout.splitlines()[-1])
    points = stored["points"]
    assert [step for step, _ in points["train/loss"]] == [1, 2, 3, 4]
    assert [value for _, value in points["train/loss"]] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert "val/loss" not in points  # nan
    spelled = {"tensorboard": "my_task__2_", "mlflow": "my task _2_"}.get(name, "my task (2)")
    assert [value for _, value in points[f"reward/{spelled}/mean"]] == [1, 2, 3, 4]
    columns, rows = ["task", "avg", "episodes"], [["ames", 0.25, 8], ["foods", None, 0]]
    if name == "tensorboard":
        assert stored["table"].splitlines()[2:] == ["| ames | 0.25 | 8 |", "| foods |  | 0 |"]
    if name == "wandb":
        assert stored["config"]["config.seed"] == 3
        assert stored["config"]["config.tasks.held_in"] == ["ames", "foods"]
        assert (stored["table"]["columns"], stored["table"]["data"]) == (columns, rows)
        ((_, *named),) = stored["ids"]  # one run in all starts
        assert named == ["mlagent-jax", "toy", "toy/sft"]
    if name == "mlflow":
        assert stored["config"]["config.seed"] == "3"
        assert stored["config"]["config.tasks.held_in"] == "('ames', 'foods')"
        assert (stored["name"], stored["status"]) == ("toy/sft", "FINISHED")
        assert (stored["table"]["columns"], stored["table"]["data"]) == (columns, rows)
    if name == "trackio":
        assert stored["config"]["config.seed"] == 3
        assert stored["config"]["config.tasks.held_in"] == ["ames", "foods"]
        assert stored["table"]["_value"] == [dict(zip(columns, row, strict=True)) for row in rows]
        (only,) = stored["names"]
        assert only.startswith("toy/sft-")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Recorder:
    """A tracker in memory; `broken` is the call that raises from the second time on."""

    broken = ""
    closed: ClassVar[list[bool]] = []
    runs: ClassVar[dict[str, list[Any]]] = {}

    def __init__(self, stage: Stage, run_id: str | None) -> None:
        self._call("open")
        self.run_id = run_id or f"run {len(self.runs)}"
        self.last_step = stage.logged if run_id else 0
        self.logged = self.runs.setdefault(self.run_id, [])
        self._seen = 0

    @staticmethod
    def check() -> None: ...

    def _call(self, name: str) -> None:
        if self.broken == name and (name != "log_scalars" or self._seen):
            raise ConnectionError("the server\nis gone")
        if name == "log_scalars":
            self._seen += 1

    def log_scalars(self, step, values):
        self._call("log_scalars")
        self.logged.append((step, dict(values)))

    def log_table(self, name, columns, rows):
        self._call("log_table")
        self.logged.append((name, rows))

    def close(self, failed):
        self.closed.append(failed)
        self._call("close")
        self.logged.append(("closed", failed))


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(Recorder, "broken", "")
    monkeypatch.setattr(Recorder, "closed", [])
    monkeypatch.setattr(Recorder, "runs", {})
    monkeypatch.setattr(tracker, "_backend_class", lambda name: Recorder)
    return Recorder


def test_a_tracker_that_is_chosen_later_is_sent_the_earlier_steps(recorder, tmp_path):
    with Tracking(("jsonl",)).open(tmp_path) as jsonl_only:
        jsonl_only.log_scalars(1, {"train/loss": 2.0})
        jsonl_only.log_scalars(2, {"train/loss": float("inf")})
    assert not recorder.runs and not (tmp_path / "trackers.json").exists()
    with Tracking(("wandb",)).open(tmp_path, 2) as both:
        both.log_scalars(3, {"train/loss": 1.0})
    (logged,) = recorder.runs.values()
    assert logged == [(1, {"train/loss": 2.0}), (2, {}), (3, {"train/loss": 1.0}), ("closed", False)]
    assert [line["train/loss"] for line in lines(tmp_path)] == [2.0, None, 1.0]


def test_a_stage_that_fails_says_so(recorder, tmp_path):
    with pytest.raises(ZeroDivisionError), Tracking(("wandb",)).open(tmp_path):
        _ = 1 / 0
    assert list(recorder.runs.values()) == [[("closed", True)]]


@pytest.mark.parametrize("broken", ["open", "log_scalars", "log_table", "close"])
def test_a_tracker_that_fails_is_closed_and_reported_once_and_the_stage_goes_on(
    recorder, tmp_path, caplog, broken
):
    recorder.broken = broken
    with Tracking(("mlflow",)).open(tmp_path) as failing:
        for step in range(1, 5):
            failing.log_scalars(step, {"train/loss": 1.0})
        failing.log_table("scores", ("task", "avg"), [("ames", 0.5)])
        failing.log_table("scores", ("task", "avg"), [("foods", 0.5)])
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    assert json.loads((tmp_path / "tables/scores.jsonl").read_text()) == {"task": "foods", "avg": 0.5}
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(
        "The tracker mlflow failed (ConnectionError: the server is gone). The stage goes on"
    )
    assert recorder.closed[-1:] == ([] if broken == "open" else [True])


def test_the_next_stage_tries_a_tracker_that_failed_again(recorder, tmp_path, caplog):
    recorder.broken = "open"
    with Tracking(("mlflow",)).open(tmp_path / "sft") as failing:
        failing.log_scalars(1, {"train/loss": 1.0})
    recorder.broken = ""
    with Tracking(("mlflow",)).open(tmp_path / "ppo") as working:
        working.log_scalars(1, {"train/loss": 2.0})
    assert [*recorder.runs.values()] == [[(1, {"train/loss": 2.0}), ("closed", False)]]
    assert len(caplog.records) == 1


def test_a_disk_that_is_full_ends_the_run(recorder, tmp_path):
    """metrics.jsonl is the run's own record: without it the run must not go on."""
    with pytest.raises(UserError, match="cannot write"), Tracking(()).open(tmp_path) as full:
        (tmp_path / "metrics.jsonl").mkdir()
        full.log_scalars(1, {"train/loss": 1.0})


def test_all_but_the_main_process_log_nothing(recorder, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    with Tracking(TRACKERS).open(tmp_path / "sft") as silent:
        silent.log_scalars(1, {"train/loss": 1.0})
        silent.log_table("scores", ("task",), [("ames",)])
    assert not recorder.runs and not (tmp_path / "sft").exists()


def test_a_torn_last_line_is_dropped_on_resume(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "train/loss": 1.0}\n{"step": 2, "train/loss": 0.5}\n{"step": 3, "tra'
    )
    with Tracking(("jsonl",)).open(tmp_path, 2) as resumed:
        resumed.log_scalars(3, {"train/loss": float("nan")})
    assert lines(tmp_path) == [
        {"step": 1, "train/loss": 1.0},
        {"step": 2, "train/loss": 0.5},
        {"step": 3, "train/loss": None},
    ]


@pytest.mark.parametrize("damaged", [b"{", b"[]", b'"run 1"', b"null", b'{"wandb": 7}', b"\xff"])
def test_damaged_ids_are_reported_once_and_new_runs_begin(recorder, tmp_path, caplog, damaged):
    (tmp_path / "trackers.json").write_bytes(damaged)
    for step in range(2):
        with Tracking(("wandb",)).open(tmp_path, step) as tracked:
            tracked.log_scalars(step + 1, {"train/loss": 1.0})
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "trackers.json is damaged" in warning and "begin new runs" in warning
    assert [*recorder.runs] == ["run 0"]
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": "run 0"}


@pytest.mark.parametrize(
    ("name", "said"),
    [("wanbd", "did you mean 'wandb'?"), ("prometheus", "there are jsonl, tensorboard, wandb")],
)
def test_an_unknown_tracker_is_refused(name, said):
    with pytest.raises(UserError, match=f"there is no tracker '{name}'") as error:
        Tracking((name,))
    assert said in str(error.value)


class NotInstalled(MetaPathFinder):
    """Python looks for this package in vain."""

    def __init__(self, package):
        self._package = package

    def find_spec(self, fullname, path, target=None):
        if fullname == self._package:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [
        ("tensorboard", "tensorboardX", "pip install -e ."),
        ("wandb", "wandb", "pip install -e '.[wandb]'"),
        ("mlflow", "mlflow", "pip install -e '.[mlflow]'"),
        ("trackio", "trackio", "pip install -e '.[trackio]'"),
    ],
)
def test_a_missing_package_names_what_installs_it(name, package, install, monkeypatch):
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled(package), *sys.meta_path])
    monkeypatch.delitem(sys.modules, f"mlagent_jax.tracking.{name}_backend", raising=False)
    with pytest.raises(UserError) as error:
        Tracking(("jsonl", name)).check()
    assert str(error.value) == f"config.tracking has '{name}', but {package} is not installed: {install}"


@pytest.mark.parametrize("line", ["import a_package_that_it_needs", "raise TypeError('of protobuf')"])
def test_a_package_that_is_broken_is_not_called_missing(line, monkeypatch, tmp_path):
    (tmp_path / "wandb.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    for module in [module for module in sys.modules if module.partition(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "mlagent_jax.tracking.wandb_backend", raising=False)
    with pytest.raises(UserError, match=r"wandb cannot be imported \(\w+Error: .*(needs|protobuf)") as error:
        Tracking(("wandb",)).check()
    assert "not installed" not in str(error.value)


def test_a_server_of_mlflow_that_is_broken_is_refused_after_three_requests(monkeypatch):
    require("mlflow")
    requests = []

    class Broken(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(503)

        def log_message(self, *arguments): ...

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    for patience in ("MAX_RETRIES", "TIMEOUT"):
        # Set and then deleted, so that what the backend sets is undone.
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{patience}", "")
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{patience}")
    with HTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{server.server_port}")
        with pytest.raises(
            UserError, match=r"MLFLOW_TRACKING_URI=http://127.0.0.1:\d+ cannot be used"
        ) as error:
            Tracking(("mlflow",)).check()
        server.shutdown()
    assert len(requests) == 3 and "secret" not in str(error.value)


def test_packages_of_trackers_that_are_not_chosen_are_not_imported(tmp_path):
    program = (
        "import sys; from pathlib import Path; from mlagent_jax.tracking.tracker import Tracking; "
        f"Tracking(('jsonl',)).open(Path({str(tmp_path)!r})).log_scalars(1, {{'train/loss': 1.0}}); "
        "print([name for name in ('wandb', 'mlflow', 'trackio', 'tensorboardX') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
