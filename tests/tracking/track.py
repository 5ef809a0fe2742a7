"""Tracks a stage in a process of its own, as a run does: `track.py TRACKER FOLDER START STOP [kill]`.

Logs the steps after START up to STOP. With `kill` it then ends by kill -9; else it logs a table, closes, and prints as
JSON what the tracker has stored, read back by the tracker's own means.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlagent_jax.tracking.tracker import Tracking

CONFIG = {"config.seed": 3, "config.tasks.held_in": ("ames", "foods"), "config.model.lora": None}
COLUMNS, ROWS = ("task", "avg", "episodes"), (("ames", 0.25, 8), ("foods", None, 0))


def values(step: int) -> dict[str, float]:
    return {"train/loss": 1 / step, "reward/my task (2)/mean": step, "val/loss": float("nan")}


def main() -> None:
    name, folder, start, stop = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    tracking = Tracking(("jsonl", name), "toy", CONFIG)
    tracking.check()
    with tracking.open(folder, start) as tracker:
        for step in range(start + 1, stop + 1):
            tracker.log_scalars(step, values(step))
        if "kill" in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)
        tracker.log_table("scores", COLUMNS, ROWS)
    print(json.dumps(READ[name](folder)))


def read_tensorboard(folder: Path) -> dict[str, Any]:
    """As TensorBoard shows it: a restart with a step hides the events from that step on."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found: dict[str, list[list[float]]] = {}
    table = ""
    for path in sorted((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (size,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + size])
            place += size + 16
            if event.session_log.status == SessionLog.START and event.step:
                found = {
                    key: [point for point in points if point[0] < event.step] for key, points in found.items()
                }
            for value in event.summary.value:
                if value.HasField("tensor"):
                    table = value.tensor.string_val[0].decode()
                else:
                    found.setdefault(value.tag, []).append([event.step, value.simple_value])
    return {"points": found, "table": table}


def read_wandb(folder: Path) -> dict[str, Any]:
    """The records of the offline part that began last, and the ids of all parts."""
    config, ids = {}, set()
    # By the time in their names: wandb's process may still write what a killed one had handed to it.
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        found: dict[str, list[list[float]]] = {}
        for record in wandb_records(path.read_bytes()):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.add(
                    (record.run.run_id, record.run.project, record.run.run_group, record.run.display_name)
                )
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if kind == "history":
                logged = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                for key, value in logged.items():
                    if not key.startswith("_") and isinstance(value, int | float) and "scores" not in key:
                        found.setdefault(key, []).append([logged["_step"], value])
    (table,) = (
        json.loads(path.read_text()) for path in folder.glob("wandb/offline-run-*/files/media/table/*.json")
    )
    return {"points": found, "config": config, "ids": sorted(ids), "table": table}


def wandb_records(data: bytes) -> Iterator[Any]:
    """The protobuf records of a .wandb file, which is a LevelDB log with 7 more bytes at its head."""
    from wandb.proto.wandb_internal_pb2 import Record

    place, whole = 7, b""
    while place < len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def read_mlflow(folder: Path) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'mlagent-jax'")
    (run,) = client.search_runs([experiment.experiment_id])
    points = {
        name: [[metric.step, metric.value] for metric in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    table = json.loads(next(folder.parent.rglob("scores.json")).read_text())
    return {
        "points": points,
        "config": run.data.params,
        "name": run.info.run_name,
        "status": run.info.status,
        "table": table,
    }


def read_trackio(folder: Path) -> dict[str, Any]:
    (path,) = Path(os.environ["TRACKIO_DIR"]).glob("*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        (config,) = database.execute("SELECT config FROM configs").fetchone()
    found: dict[str, list[list[float]]] = {}
    table = None
    for _, step, text in rows:
        for key, value in json.loads(text).items():
            if key == "scores":
                table = value
            else:
                found.setdefault(key, []).append([step, value])
    return {
        "points": found,
        "config": json.loads(config),
        "names": sorted({name for name, _, _ in rows}),
        "table": table,
    }


READ = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
    "trackio": read_trackio,
}

if __name__ == "__main__":
    main()
