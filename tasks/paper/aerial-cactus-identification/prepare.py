"""Kaggle's aerial-cactus-identification, with MLE-bench's test split."""

from pathlib import Path

from mlagent_jax.tasks.competition import competition_files, new_test, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

RAW = KaggleArchive(
    "aerial-cactus-identification",
    wanted=("train.csv", "train"),
    nested=("train.zip",),
    md5="72018554bfbb009f2145f56121380078",
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    train, test = new_test(read_table(raw / "train.csv", ("id", "has_cactus"), rows=17500), share=0.19)
    images: dict[str, bytes | Path] = {
        f"{part}/{image}": raw / "train" / image
        for part, rows in (("train", train), ("test", test))
        for image in rows["id"]
    }
    return competition_files(
        train,
        test[["id"]],
        test[["id", "has_cactus"]],
        source="https://www.kaggle.com/competitions/aerial-cactus-identification",
        files=images,
        answers_md5="ebdb02d62dbaf60270a9b3a8617840af",
    )
