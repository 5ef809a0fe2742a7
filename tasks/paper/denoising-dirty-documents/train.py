"""Clean stained pages by stretching the contrast of each."""

import numpy as np
import pandas as pd
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GroupShuffleSplit

dirty = np.load("data/train_dirty.npy")
clean = np.load("data/train_clean.npy")
test_dirty = np.load("data/test_dirty.npy")


def pages_of(table: str) -> np.ndarray:
    """The page of each row of pixels."""
    return pd.read_csv(f"data/{table}.csv")["id"].str.partition("_")[0].to_numpy()


def restored(rows: np.ndarray, pages: np.ndarray) -> np.ndarray:
    """Each page's darkest grey becomes 0 and its lightest 1."""
    result = np.empty_like(rows)
    for page in np.unique(pages):
        darkest, lightest = np.percentile(rows[pages == page], [1, 99])
        result[pages == page] = (rows[pages == page] - darkest) / max(lightest - darkest, 0.01)
    return np.clip(result, 0, 1)


# Pages for validation are whole pages.
pages = pages_of("train")
splitter = GroupShuffleSplit(n_splits=1, test_size=0.2, random_state=0)
fit, valid = next(splitter.split(dirty, groups=pages))

score = root_mean_squared_error(clean[valid].ravel(), restored(dirty[valid], pages[valid]).ravel())
print(f"validation rmse: {score:.4f}")

np.save("submission.npy", restored(test_dirty, pages_of("test")))
