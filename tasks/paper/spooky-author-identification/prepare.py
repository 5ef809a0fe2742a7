"""Kaggle's spooky-author-identification, with MLE-bench's test split."""

from mlagent_jax.tasks.competition import competition_files, new_test, one_hot, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

RAW = KaggleArchive(
    "spooky-author-identification",
    wanted=("train.csv",),
    nested=("train.zip",),
    md5="8f12d4f1f138f3867e881293b9bc54ee",
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    train, test = new_test(read_table(raw / "train.csv", ("id", "text", "author"), rows=19579), share=0.1)
    return competition_files(
        train,
        test.drop(columns="author"),
        one_hot(test, "id", "author", ("EAP", "HPL", "MWS")),
        source="https://www.kaggle.com/competitions/spooky-author-identification",
        answers_md5="fb1381c6c9a7e9efd236c625807a0c8a",
    )
