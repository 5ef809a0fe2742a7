"""Kaggle's learning-agency-lab-automated-essay-scoring-2, with MLE-bench's test split."""

from mlagent_jax.tasks.competition import competition_files, new_test, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

RAW = KaggleArchive(
    "learning-agency-lab-automated-essay-scoring-2",
    wanted=("train.csv",),
    md5="392ed5c55e47ebac98f6d4d529b97f50",
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    rows = read_table(raw / "train.csv", ("essay_id", "full_text", "score"), rows=17307)
    train, test = new_test(rows, share=0.1)
    return competition_files(
        train,
        test.drop(columns="score"),
        test[["essay_id", "score"]],
        source="https://www.kaggle.com/competitions/learning-agency-lab-automated-essay-scoring-2",
    )
