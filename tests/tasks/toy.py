"""A small task folder, written anywhere, for tests of preparation and loading."""

from pathlib import Path

import numpy as np
import pandas as pd

TOML = """\
title = "Toy"
brief = "Tabular regression: predict y from a and b. Metric mae, lower is better. train.py: the mean."
kind = "tabular regression"
split = "held_in"
metric = "mae"
id_column = "id"
target_columns = ["y"]
m_best = 0.5
m_best_source = "made up"
show_public_score = true

[limits]
wall_seconds = 5.5
"""

PREPARE = """\
import io
import pandas as pd
from mlagent_jax.tasks.preparation import LabelledRows

def prepare(files):
    rows = pd.read_csv(io.BytesIO(files.from_task("rows.csv")))
    return LabelledRows(rows=rows, train_rows=60, source="made up", licence="CC0")
"""

STARTER = """\
import pandas as pd
train, test = pd.read_csv("data/train.csv"), pd.read_csv("data/test.csv")
pd.DataFrame({"id": test["id"], "y": train["y"].mean()}).to_csv("submission.csv", index=False)
"""


def rows(n: int = 100, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=n), "b": [f'word {i}, "quoted"\nline' for i in range(n)]})
    frame["y"] = 3 * frame["a"] + rng.normal(size=n)
    return frame


def write_task(
    folder: Path, toml: str = TOML, prepare: str = PREPARE, data: pd.DataFrame | None = None
) -> Path:
    (folder / "raw").mkdir(parents=True)
    (folder / "task.toml").write_text(toml)
    (folder / "description.md").write_text("# Toy\n\nPredict y.\n")
    (folder / "train.py").write_text(STARTER)
    (folder / "prepare.py").write_text(prepare)
    (rows() if data is None else data).to_csv(folder / "raw" / "rows.csv", index=False)
    return folder
