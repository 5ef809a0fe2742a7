"""Predict forest cover types with boosted trees on a part of the rows."""

import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv", nrows=400_000)
test = pd.read_csv("data/test.csv")

target = "Cover_Type"
features = [column for column in test.columns if column != "Id"]

X = train[features]
X_test = test[features]
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = HistGradientBoostingClassifier(max_iter=50, early_stopping=False, random_state=0)
model.fit(X_fit, y_fit)

valid_predictions = model.predict(X_valid)
score = accuracy_score(y_valid, valid_predictions)
print(f"validation accuracy: {score:.4f}")

predictions = model.predict(X_test)
submission = pd.DataFrame({"Id": test["Id"], target: predictions})
submission.to_csv("submission.csv", index=False)
