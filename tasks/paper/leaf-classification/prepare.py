"""Kaggle's leaf-classification, with MLE-bench's test split."""

from mlagent_jax.tasks.competition import competition_files, new_test, one_hot, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

RAW = KaggleArchive(
    "leaf-classification",
    wanted=("train.csv", "images"),
    nested=("train.csv.zip", "images.zip"),
    md5="043bdec7fadb7922978b7484217b6007",
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    columns = ("id", "species", "margin1", "shape1", "texture64")
    rows = read_table(raw / "train.csv", columns, rows=990)
    train, test = new_test(rows, share=0.1)
    return competition_files(
        train,
        test.drop(columns="species"),
        one_hot(test, "id", "species", sorted(set(rows["species"]))),
        source="https://www.kaggle.com/competitions/leaf-classification",
        files={f"images/{leaf}.jpg": raw / "images" / f"{leaf}.jpg" for leaf in rows["id"]},
        answers_md5="028b4798af4eeafc69ab98b22dc2c70a",
    )
