"""Kaggle's feedback-prize-english-language-learning, of which a random 2 % are the test set, as in MLAgentBench."""

from mlagent_jax.tasks.competition import competition_files, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

RATINGS = ["cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions"]
# No hash of the archive is published; the number of rows is checked.
RAW = KaggleArchive("feedback-prize-english-language-learning", wanted=("train.csv",))


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    rows = read_table(raw / "train.csv", ("text_id", "full_text", *RATINGS), rows=3911)
    rows = rows.sample(frac=1, random_state=42)
    first = int(len(rows) * 0.98)
    train, test = rows[:first], rows[first:]
    return competition_files(
        train,
        test.drop(columns=RATINGS),
        test[["text_id", *RATINGS]],
        source="https://www.kaggle.com/competitions/feedback-prize-english-language-learning",
    )
