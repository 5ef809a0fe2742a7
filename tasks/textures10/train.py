"""Patches of ten pictures."""

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")


def pixels(images):
    return images.reshape(len(images), -1)


def features(images):
    """Inputs of the model, one row each."""
    return pixels(images)


target = "picture"
X = np.load("data/train_images.npy")[: len(train)] / 255
X_test = np.load("data/test_images.npy") / 255
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = make_pipeline(
    PCA(n_components=0.5, random_state=0),
    SVC(C=1.0),
)
model.fit(features(X_fit), y_fit)

valid_predictions = model.predict(features(X_valid))
score = accuracy_score(y_valid, valid_predictions)
print(f"validation accuracy: {score:.4f}")

model.fit(features(X), y)
predictions = model.predict(features(X_test))
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
