"""Stained pages made clean."""

import numpy as np
import pandas as pd
from scipy.ndimage import uniform_filter
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")


def some_pixels(X, y, count):
    """At most `count` pixels, drawn at random."""
    chosen = np.random.default_rng(0).permutation(len(X))[:count]
    return X[chosen], y.ravel()[chosen]


def grey(pages):
    return pages.reshape(-1, 1)


def mean_around(pages, size):
    return uniform_filter(pages, (1, size, size)).reshape(-1, 1)


def features(pages):
    """Inputs of the model, one row each."""
    return np.hstack([grey(pages), mean_around(pages, size=5)])


X = np.load("data/train_dirty.npy")[: len(train)] / 255
X_test = np.load("data/test_dirty.npy") / 255
y = np.load("data/train_clean.npy")[: len(train)].astype(float)

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = HistGradientBoostingRegressor(max_iter=60, max_leaf_nodes=3, random_state=0)
model.fit(*some_pixels(features(X_fit), y_fit, 40000))

valid_predictions = np.clip(model.predict(features(X_valid)), 0, 255)
score = root_mean_squared_error(y_valid.ravel(), valid_predictions)
print(f"validation rmse: {score:.4f}")

model.fit(*some_pixels(features(X), y, 40000))
predictions = np.clip(model.predict(features(X_test)), 0, 255)
np.save("submission.npy", predictions.reshape(X_test.shape).astype(np.float32))
