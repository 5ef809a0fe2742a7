"""Outlines of leaves as series (Grandhi 2000; UCR archive), as aeon ships them."""

import numpy as np
import pandas as pd

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles

SPECIES = (
    "acer_circinatum",
    "acer_glabrum",
    "acer_macrophyllum",
    "acer_negundo",
    "quercus_garryana",
    "quercus_kelloggii",
)


def prepare(files: RawFiles) -> LabelledRows:
    parts = [
        files.from_wheel(
            "aeon",
            "1.6.0",
            "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
            f"aeon/datasets/data/OSULeaf/OSULeaf_{part}.ts",
        )
        for part in ("TRAIN", "TEST")
    ]
    lines = [line for part in parts for line in part.decode().partition("@data")[2].split()]
    series, labels = zip(*(line.rsplit(":", 1) for line in lines), strict=True)
    return LabelledRows(
        rows=pd.DataFrame({"species": [SPECIES[int(label) - 1] for label in labels]}),
        arrays={"outlines": np.array([one.split(",") for one in series], dtype=np.float32)},
        train_rows=192,
        source="OSULeaf of the UCR archive, from the thesis of A. Grandhi, as in aeon",
        licence="BSD-3-Clause (aeon); of the data themselves none is stated there",
    )
