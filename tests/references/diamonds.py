"""Boosted trees and a forest on the logarithm of the price, with the grades as ordered numbers, averaged."""

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor

GRADES = {
    "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
    "color": ["J", "I", "H", "G", "F", "E", "D"],
    "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
}

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")
y = np.log(train.pop("price"))


def features(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.drop(columns="id")
    for column, grades in GRADES.items():
        frame[column] = frame[column].map({grade: rank for rank, grade in enumerate(grades)})
    return frame.assign(carat=np.log(frame["carat"]), volume=np.log1p(frame["x"] * frame["y"] * frame["z"]))


X, X_test = features(train), features(test)
boosting = GradientBoostingRegressor(
    n_estimators=500, learning_rate=0.04, max_depth=5, subsample=0.6, max_features=0.5, random_state=0
)
forest = ExtraTreesRegressor(n_estimators=300, min_samples_leaf=2, random_state=0)
predictions = sum(
    model.fit(X, y).predict(X_test) * weight for model, weight in ((boosting, 0.8), (forest, 0.2))
)
pd.DataFrame({"id": test["id"], "price": np.exp(predictions)}).to_csv("submission.csv", index=False)
