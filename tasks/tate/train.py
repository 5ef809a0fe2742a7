"""Years of works of art."""

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

target = "year"
text_columns = ["title", "medium"]
X = train[text_columns].fillna("").agg(" ".join, axis=1)
X_test = test[text_columns].fillna("").agg(" ".join, axis=1)
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = make_pipeline(
    CountVectorizer(max_features=100),
    RandomForestRegressor(n_estimators=10, min_samples_leaf=5, random_state=0),
)
model.fit(X_fit, y_fit)

valid_predictions = np.clip(model.predict(X_valid), y_fit.min(), y_fit.max())
score = mean_absolute_error(y_valid, valid_predictions)
print(f"validation mae: {score:.4f}")

model.fit(X, y)
predictions = np.clip(model.predict(X_test), y.min(), y.max())
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
