"""Kaggle's tabular-playground-series-dec-2021, with MLE-bench's test split."""

from mlagent_jax.tasks.competition import competition_files, new_test, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

RAW = KaggleArchive(
    "tabular-playground-series-dec-2021", wanted=("train.csv",), md5="c7f38370ee2609e5602814a55cb26555"
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    columns = ("Id", "Elevation", "Wilderness_Area1", "Soil_Type40", "Cover_Type")
    train, test = new_test(read_table(raw / "train.csv", columns, rows=4_000_000), share=0.1)
    return competition_files(
        train,
        test.drop(columns="Cover_Type"),
        test[["Id", "Cover_Type"]],
        source="https://www.kaggle.com/competitions/tabular-playground-series-dec-2021",
        classes=[str(number) for number in range(1, 8)],
    )
