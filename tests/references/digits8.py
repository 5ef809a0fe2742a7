"""Digits of 8x8 pixels; found by exploration of the space of pipelines (see m_best_source)."""

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesClassifier, VotingClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")


def contrasted(images):
    """Each image at zero mean and unit variance."""
    axes = tuple(range(1, images.ndim))
    return (images - images.mean(axes, keepdims=True)) / (images.std(axes, keepdims=True) + 1e-9)


def pixels(images):
    return images.reshape(len(images), -1)


def halved(images):
    """Means of 2x2 pixels."""
    h, w = images.shape[1] // 2, images.shape[2] // 2
    cut = images[:, : 2 * h, : 2 * w].reshape(len(images), h, 2, w, 2, -1)
    return cut.mean(axis=(2, 4)).reshape(len(images), -1)


def gradients(images, cells):
    """Histograms of 8 gradient directions in cells x cells parts of each image."""
    grey = images if images.ndim == 3 else images.mean(axis=3)
    dy, dx = np.gradient(grey, axis=(1, 2))
    size, turn = np.hypot(dy, dx), (np.arctan2(dy, dx) / np.pi % 1 * 8).astype(int) % 8
    parts = []
    for direction in range(8):
        for band in np.array_split(size * (turn == direction), cells, axis=1):
            parts += [block.mean(axis=(1, 2)) for block in np.array_split(band, cells, axis=2)]
    found = np.stack(parts, axis=1)
    return found / (np.linalg.norm(found, axis=1, keepdims=True) + 1e-6)


def shifted(X, y):
    """The images, and copies of them moved by one pixel up, down, left and right."""
    moved = [np.roll(X, step, axis) for axis in (1, 2) for step in (-1, 1)]
    return np.concatenate([X, *moved]), np.concatenate([y] * 5)


def features(images):
    """Inputs of the model, one row each."""
    images = contrasted(images)
    return np.hstack([pixels(images), halved(images), gradients(images, cells=2)])


target = "digit"
X = np.load("data/train_images.npy")[: len(train)] / 16
X_test = np.load("data/test_images.npy") / 16
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)
X_fit, y_fit = shifted(X_fit, y_fit)

model = VotingClassifier(
    [
        (
            "extra_trees",
            ExtraTreesClassifier(n_estimators=100, max_features=0.5, class_weight="balanced", random_state=0),
        ),
        ("neighbors_2", KNeighborsClassifier(n_neighbors=5)),
    ],
    voting="soft",
)
model.fit(features(X_fit), y_fit)

valid_predictions = model.predict(features(X_valid))
score = accuracy_score(y_valid, valid_predictions)
print(f"validation accuracy: {score:.4f}")

X, y = shifted(X, y)
model.fit(features(X), y)
predictions = model.predict(features(X_test))
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
