"""Customers who leave."""

import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

target = "churn"
features = [
    "account_length",
    "total_day_minutes",
    "total_eve_minutes",
    "total_intl_minutes",
    "number_vmail_messages",
]
X, X_test, y = train[features], test[features], train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = HistGradientBoostingClassifier(max_iter=100, random_state=0)
model.fit(X_fit, y_fit)

valid_predictions = model.predict_proba(X_valid)[:, 1]
score = roc_auc_score(y_valid, valid_predictions)
print(f"validation auc: {score:.4f}")

model.fit(X, y)
predictions = model.predict_proba(X_test)[:, 1]
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
