"""Tell species apart with logistic regression on the leaves' descriptors."""

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

features = [column for column in test.columns if column != "id"]

X = train[features]
X_test = test[features]
y = train["species"]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0, stratify=y)

model = make_pipeline(StandardScaler(), LogisticRegression(C=3.0, max_iter=500))
model.fit(X_fit, y_fit)

score = log_loss(y_valid, model.predict_proba(X_valid), labels=model.classes_)
print(f"validation log loss: {score:.4f}")

submission = pd.DataFrame(model.predict_proba(X_test), columns=model.classes_)
submission.insert(0, "id", test["id"])
submission.to_csv("submission.csv", index=False)
