"""Boosted trees on a pixel's neighbours, and on how dark it is for the paper around it."""

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter, median_filter, minimum_filter
from sklearn.ensemble import HistGradientBoostingRegressor

SAMPLE = 120_000

dirty = np.load("data/train_dirty.npy").astype(np.float32)
clean = np.load("data/train_clean.npy").astype(np.float32)
test = np.load("data/test_dirty.npy").astype(np.float32)


def features(page: np.ndarray) -> np.ndarray:
    """[pixels, features] of one page."""
    paper = gaussian_filter(maximum_filter(median_filter(page, 3), 9), 3)
    ink = page / np.maximum(paper, 1)
    padded = np.pad(ink, 3, mode="edge")
    height, width = page.shape
    around = [padded[y : y + height, x : x + width] for y in range(7) for x in range(7)]
    layers = [page, paper, *around, gaussian_filter(ink, 1), gaussian_filter(ink, 3)]
    layers += [minimum_filter(ink, 5), minimum_filter(ink, 15), median_filter(page, 15) - page]
    return np.stack(layers, axis=-1).reshape(height * width, -1)


X = np.concatenate([features(page) for page in dirty])
y = clean.reshape(-1)
chosen = np.random.default_rng(0).choice(len(X), min(SAMPLE, len(X)), replace=False)
model = HistGradientBoostingRegressor(max_iter=200, learning_rate=0.12, max_leaf_nodes=48, random_state=0)
model.fit(X[chosen], y[chosen])
predictions = np.stack([model.predict(features(page)).reshape(page.shape) for page in test])
np.save("submission.npy", np.clip(predictions, 0, 255).astype(np.float32))
