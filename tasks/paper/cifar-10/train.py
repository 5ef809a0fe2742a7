"""Classify small photographs with a perceptron of one hidden layer."""

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")


def pixels(path: str) -> np.ndarray:
    """From -0.5 to 0.5, [images, 32 * 32 * 3]."""
    images = np.load(path)
    return images.reshape(len(images), -1).astype(np.float32) / 255 - 0.5


X = pixels("data/train_images.npy")
X_test = pixels("data/test_images.npy")
y = train["label"]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = MLPClassifier(hidden_layer_sizes=(256,), batch_size=128, max_iter=8, random_state=0)
model.fit(X_fit, y_fit)

score = accuracy_score(y_valid, model.predict(X_valid))
print(f"validation accuracy: {score:.4f}")

submission = pd.DataFrame({"id": test["id"], "label": model.predict(X_test)})
submission.to_csv("submission.csv", index=False)
