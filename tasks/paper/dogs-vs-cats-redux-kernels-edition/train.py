"""Tell dogs from cats with logistic regression on very small grey images."""

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")


def pixels(paths: list[str], side: int = 16) -> np.ndarray:
    """Greys of the shrunken images from 0 to 1, [images, side * side]."""
    rows = []
    for path in paths:
        with Image.open(path) as image:
            image.draft("L", (4 * side, 4 * side))  # decodes at a smaller size, which is faster
            rows.append(np.asarray(image.convert("L").resize((side, side))).ravel() / 255)
    return np.array(rows)


X = pixels([f"data/train/{name}" for name in train["image"]])
X_test = pixels([f"data/test/{number}.jpg" for number in test["id"]])
y = train["label"]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = LogisticRegression(C=0.1, max_iter=300)
model.fit(X_fit, y_fit)

score = log_loss(y_valid, model.predict_proba(X_valid)[:, 1])
print(f"validation log loss: {score:.4f}")

submission = pd.DataFrame({"id": test["id"], "label": model.predict_proba(X_test)[:, 1]})
submission.to_csv("submission.csv", index=False)
