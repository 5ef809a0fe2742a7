"""Prices of diamonds."""

import numpy as np
import pandas as pd
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsRegressor

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

target = "price"
features = test.select_dtypes("number").columns.drop("id").tolist()
X, X_test, y = train[features], test[features], train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = KNeighborsRegressor(n_neighbors=15)
model.fit(X_fit, y_fit)

valid_predictions = np.clip(model.predict(X_valid), y_fit.min(), y_fit.max())
score = mean_absolute_error(y_valid, valid_predictions)
print(f"validation mae: {score:.4f}")

model.fit(X, y)
predictions = np.clip(model.predict(X_test), y.min(), y.max())
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
