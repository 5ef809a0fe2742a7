"""Clean stained pages with a linear model of a pixel's grey."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GroupShuffleSplit

dirty = np.load("data/train_dirty.npy")
clean = np.load("data/train_clean.npy")
test_dirty = np.load("data/test_dirty.npy")

# Pages for validation are whole pages.
pages = pd.read_csv("data/train.csv")["id"].str.partition("_")[0]
splitter = GroupShuffleSplit(n_splits=1, test_size=0.2, random_state=0)
fit, valid = next(splitter.split(dirty, groups=pages))

model = LinearRegression()
model.fit(dirty[fit].reshape(-1, 1), clean[fit].ravel())


def restored(rows: np.ndarray) -> np.ndarray:
    return np.clip(model.predict(rows.reshape(-1, 1)).reshape(rows.shape), 0, 1)


score = root_mean_squared_error(clean[valid].ravel(), restored(dirty[valid]).ravel())
print(f"validation rmse: {score:.4f}")

np.save("submission.npy", restored(test_dirty).astype(np.float32))
