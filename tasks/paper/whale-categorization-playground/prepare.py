"""Kaggle's whale-categorization-playground, with MLE-bench's test split."""

from pathlib import Path

import numpy as np
import pandas as pd

from mlagent_jax.tasks.competition import competition_files, new_test, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

TEST_SHARE = 0.1
RAW = KaggleArchive(
    "whale-categorization-playground",
    wanted=("train.csv", "train"),
    md5="1fc460b6656261ddafcc21a44248844e",
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    rows = read_table(raw / "train.csv", ("Image", "Id"), rows=9850)[["Image", "Id"]]
    parts = split(rows)
    train, test = rows[parts == "train"], rows[parts == "test"]
    test = test.assign(Id=test["Id"].where(test["Id"].isin(train["Id"]), "new_whale"))
    images: dict[str, bytes | Path] = {
        f"{part}/{image}": raw / "train" / image for part, image in zip(parts, rows["Image"], strict=True)
    }
    return competition_files(
        train,
        test[["Image"]],
        test,
        source="https://www.kaggle.com/competitions/whale-categorization-playground",
        files=images,
        answers_md5="c86022f990b9fccf644806e023d24b51",
    )


def split(rows: pd.DataFrame) -> pd.Series:
    """ "train" or "test" of each photograph, by MLE-bench's rule.

    Of a whale with several photographs one goes to each part; one that has a single photograph goes to either
    by chance; what remains is split as usual.
    """
    generator = np.random.default_rng(0)
    parts = pd.Series("", index=rows.index)
    for _, photographs in rows.groupby("Id", sort=False):
        if len(photographs) >= 2:
            known, asked = photographs.sample(2, random_state=0).index
            parts[known], parts[asked] = "train", "test"
        else:
            shares = [1 - TEST_SHARE, TEST_SHARE]
            parts[photographs.index[0]] = str(generator.choice(["train", "test"], replace=False, p=shares))
    train, test = new_test(rows[parts == ""], TEST_SHARE)
    parts[train.index], parts[test.index] = "train", "test"
    return parts
