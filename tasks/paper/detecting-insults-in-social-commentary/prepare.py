"""Kaggle's detecting-insults-in-social-commentary, with its own test rows as in MLE-bench.

The competition's submissions have no ids but repeat the comments; here a test row's number is its id.
"""

from mlagent_jax.tasks.competition import competition_files, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

COLUMNS = ["Insult", "Date", "Comment"]
RAW = KaggleArchive(
    "detecting-insults-in-social-commentary",
    wanted=("train.csv", "test_with_solutions.csv"),
    md5="719b313286d397ddc6d8e454135249de",
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    train = read_table(raw / "train.csv", COLUMNS)[COLUMNS]
    solutions = read_table(raw / "test_with_solutions.csv", COLUMNS)
    solutions.insert(0, "id", range(len(solutions)))
    return competition_files(
        train,
        solutions[["id", "Date", "Comment"]],
        solutions[["id", "Insult"]],
        source="https://www.kaggle.com/competitions/detecting-insults-in-social-commentary",
    )
