"""Tell icebergs from ships with boosted trees on statistics of the two bands."""

import numpy as np
import pandas as pd
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")


def features(path: str, angles: pd.Series) -> np.ndarray:
    """Mean, spread and extremes of each band, and the angle, [images, 9]."""
    pixels = np.load(path).reshape(len(angles), 2, -1)
    statistics = [pixels.mean(axis=2), pixels.std(axis=2), pixels.min(axis=2), pixels.max(axis=2)]
    return np.hstack([*statistics, angles.fillna(39).to_numpy()[:, None]])


X = features("data/train_bands.npy", train["inc_angle"])
X_test = features("data/test_bands.npy", test["inc_angle"])
y = train["is_iceberg"]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = GradientBoostingClassifier(n_estimators=50, random_state=0)
model.fit(X_fit, y_fit)

score = log_loss(y_valid, model.predict_proba(X_valid)[:, 1])
print(f"validation log loss: {score:.4f}")

submission = pd.DataFrame({"id": test["id"], "is_iceberg": model.predict_proba(X_test)[:, 1]})
submission.to_csv("submission.csv", index=False)
