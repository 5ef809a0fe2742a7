"""Predict who leaves a telephone company with a linear model on a few numbers."""

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv").head(600)
test = pd.read_csv("data/test.csv")

target = "churn"
features = ["account_length", "total_day_minutes", "total_eve_minutes", "total_intl_minutes"]

X = train[features]
X_test = test[features]
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.4, random_state=0)

model = LogisticRegression(max_iter=500)
model.fit(X_fit, y_fit)

valid_predictions = model.predict_proba(X_valid)[:, 1]
score = roc_auc_score(y_valid, valid_predictions)
print(f"validation auc: {score:.4f}")

predictions = model.predict_proba(X_test)[:, 1]
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
