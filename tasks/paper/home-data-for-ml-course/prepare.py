"""Kaggle's home-data-for-ml-course, whose last fifth is the test set, as in MLAgentBench."""

from mlagent_jax.tasks.competition import competition_files, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

# No hash of the archive is published; the number of rows is checked.
RAW = KaggleArchive("home-data-for-ml-course", wanted=("train.csv",))


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    columns = ("Id", "LotArea", "YearBuilt", "1stFlrSF", "SalePrice")
    rows = read_table(raw / "train.csv", columns, rows=1460)
    first = int(len(rows) * 0.8)
    train, test = rows[:first], rows[first:]
    return competition_files(
        train,
        test.drop(columns="SalePrice"),
        test[["Id", "SalePrice"]],
        source="https://www.kaggle.com/competitions/home-data-for-ml-course",
    )
