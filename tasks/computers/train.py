"""Predict the price of a computer with a linear model on a few numbers."""

import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv").head(300)
test = pd.read_csv("data/test.csv")

target = "price"
features = ["speed", "ram", "screen"]

X = train[features]
X_test = test[features]
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.4, random_state=0)

model = Ridge(alpha=1.0)
model.fit(X_fit, y_fit)

valid_predictions = model.predict(X_valid)
score = root_mean_squared_error(y_valid, valid_predictions)
print(f"validation rmse: {score:.4f}")

predictions = model.predict(X_test)
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
