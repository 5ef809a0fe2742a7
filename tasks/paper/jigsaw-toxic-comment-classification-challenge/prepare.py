"""Kaggle's jigsaw-toxic-comment-classification-challenge, with its own test rows as in MLE-bench."""

import numpy as np

from mlagent_jax.tasks.competition import competition_files, halves, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

KINDS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
TABLES = ("train.csv", "test.csv", "test_labels.csv")
RAW = KaggleArchive(
    "jigsaw-toxic-comment-classification-challenge",
    wanted=TABLES,
    nested=tuple(f"{name}.zip" for name in TABLES),
    md5="a0159f30626e4c6a590f09d597c147d6",
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    train = read_table(raw / "train.csv", ("id", "comment_text", *KINDS), rows=159_571)
    test = read_table(raw / "test.csv", ("id", "comment_text"), rows=153_164)
    labels = read_table(raw / "test_labels.csv", ("id", *KINDS), rows=153_164)
    labels = test[["id"]].merge(labels[["id", *KINDS]], on="id", validate="one_to_one")
    # Rows of -1 were never part of the score.
    scored = labels[KINDS].sum(axis=1) >= 0
    labels["split"] = np.where(scored, halves(labels["id"].tolist()), "unscored")
    return competition_files(
        train,
        test,
        labels,
        source="https://www.kaggle.com/competitions/jigsaw-toxic-comment-classification-challenge",
    )
