"""Small data of every kind, in the files that tasks have: some text columns, some gaps, a target that can be learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mlagent_jax.pipelines.pipeline import KINDS, Facts

TRAIN, TEST = 240, 60
_PAGES = 8  # of the rows that have images for targets
WORDS = [
    f"{first}{second}" for first in "abcdefghijklmnopqrst" for second in ("ra", "lo", "mi", "tu", "pe", "ks")
]

FACTS = {
    "table": (
        Facts("table", "Prices", "rmsle", "price"),
        Facts("table", "Who leaves", "auc", "leaves"),
        Facts("table", "Sorts", "macro_f1", "sort"),
    ),
    "text": (Facts("text", "Moods", "accuracy", "sort"), Facts("text", "Years", "mae", "price")),
    "pair": (Facts("pair", "Pairs", "spearman", "price", array="first second collection"),),
    "image": (
        Facts("image", "Digits", "accuracy", "sort", array="images", scale=16),
        Facts("image", "Signs", "accuracy", "sort", array="signs", scale=255),
    ),
    "image_to_image": (Facts("image_to_image", "Pages", "rmse", "clean", array="dirty", scale=255),),
    "series": (Facts("series", "Outlines", "accuracy", "sort", array="outlines"),),
    "graph": (Facts("graph", "Genres", "accuracy", "sort"),),
}
COLUMNS = {"table": ("size", "age"), "text": ("title", "body"), "graph": ("plays", "albums")}


def write_tiny_data(folder: Path, kind: str) -> None:
    """Writes train.csv, test.csv and the arrays of a kind to `folder`, as a script sees them in data/."""
    assert kind in KINDS
    rng = np.random.default_rng(0)
    count = TRAIN + TEST
    size = rng.uniform(1, 10, count)
    price = 3 * size + rng.uniform(1, 2, count)
    frame = pd.DataFrame({"id": range(count)})
    arrays: dict[str, np.ndarray] = {}
    sort = np.where(price > 22, "large", np.where(price > 12, "middle", "small"))
    if kind == "table":
        frame["size"], frame["age"] = size, rng.integers(1, 50, count)
        frame["rooms"] = np.where(rng.random(count) < 0.1, np.nan, np.round(size / 2))
        frame["place"] = np.where(
            rng.random(count) < 0.1, None, rng.choice(["north", "south", "west"], count)
        )
    elif kind == "text":
        for name in ("title", "body"):
            frame[name] = [
                f"{' '.join(rng.choice(WORDS, 12))} {one} <br /> {rng.integers(9)}" for one in sort
            ]
    elif kind == "pair":
        frame["first"], frame["second"] = rng.choice(WORDS, count), rng.choice(WORDS, count)
        frame["collection"] = rng.choice(["near", "same"], count)
        arrays = {
            f"{one}_vectors": rng.normal(size=(count, 12)).astype(np.float16) for one in ("first", "second")
        }
    elif kind == "image":
        bright = (price / price.max())[:, None, None]
        arrays["images"] = (rng.random((count, 8, 8)) * bright * 16).astype(np.uint8)
        arrays["signs"] = (rng.random((count, 10, 10, 3)) * bright[..., None] * 255).astype(np.uint8)
    elif kind == "image_to_image":
        frame = frame.head(2 * _PAGES)
        clean = np.where(rng.random((2 * _PAGES, 20, 24)) < 0.2, 0, 255)
        arrays = {"clean": clean.astype(np.uint8), "dirty": (clean * 0.6 + 60).astype(np.uint8)}
    elif kind == "series":
        waves = np.sin(np.arange(64)[None] * price[:, None] / 20)
        arrays["outlines"] = (waves + rng.normal(0, 0.1, waves.shape)).astype(np.float32)
    else:
        frame["plays"], frame["albums"] = (
            size,
            np.where(rng.random(count) < 0.2, np.nan, rng.integers(9, size=count)),
        )
        links = np.sort(rng.integers(count, size=(900, 2)), axis=1)
        pd.DataFrame(links[links[:, 0] < links[:, 1]], columns=["id_a", "id_b"]).to_csv(
            folder / "edges.csv", index=False
        )
    train = _PAGES if kind == "image_to_image" else TRAIN
    known = (
        frame
        if kind == "image_to_image"
        else frame.assign(price=price, leaves=(price > 15).astype(int), sort=sort)
    )
    known.head(train).to_csv(folder / "train.csv", index=False)
    frame.iloc[train:].to_csv(folder / "test.csv", index=False)
    for name, array in arrays.items():
        np.save(folder / f"train_{name}.npy", array[:train])
        np.save(folder / f"test_{name}.npy", array[train:])
