"""Kaggle's spaceship-titanic, with MLE-bench's test split."""

from mlagent_jax.tasks.competition import competition_files, new_test, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

RAW = KaggleArchive("spaceship-titanic", wanted=("train.csv",), md5="67c177886736583aff9b947e121395a9")


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    columns = ("PassengerId", "HomePlanet", "CryoSleep", "Cabin", "Age", "Spa", "Transported")
    train, test = new_test(read_table(raw / "train.csv", columns, rows=8693), share=0.1)
    return competition_files(
        train,
        test.drop(columns="Transported"),
        test[["PassengerId", "Transported"]],
        source="https://www.kaggle.com/competitions/spaceship-titanic",
    )
