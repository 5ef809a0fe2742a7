"""Kaggle's us-patent-phrase-to-phrase-matching, with MLE-bench's test split."""

from mlagent_jax.tasks.competition import competition_files, new_test, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

RAW = KaggleArchive(
    "us-patent-phrase-to-phrase-matching", wanted=("train.csv",), md5="e3eae0b5c78ed58de04e1f32e499188a"
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    columns = ("id", "anchor", "target", "context", "score")
    train, test = new_test(read_table(raw / "train.csv", columns, rows=36473), share=0.1)
    return competition_files(
        train,
        test.drop(columns="score"),
        test[["id", "score"]],
        source="https://www.kaggle.com/competitions/us-patent-phrase-to-phrase-matching",
    )
