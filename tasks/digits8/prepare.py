"""Handwritten digits of 8x8 pixels (Alpaydin and Kaynak 1998), as scikit-learn ships them."""

import gzip
import io

import numpy as np
import pandas as pd

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_installed(
        "sklearn",
        "datasets/data/digits.csv.gz",
        "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
    )
    table = np.loadtxt(io.BytesIO(gzip.decompress(data)), delimiter=",").astype(np.uint8)
    return LabelledRows(
        rows=pd.DataFrame({"digit": table[:, -1]}),
        arrays={"images": table[:, :-1].reshape(-1, 8, 8)},
        train_rows=797,
        source="UCI, Optical Recognition of Handwritten Digits, test part, as in scikit-learn",
        licence="CC BY 4.0 (UCI); BSD-3-Clause (scikit-learn)",
    )
