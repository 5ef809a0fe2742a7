"""Score essays with gradient boosting on TF-IDF."""

import numpy as np
import pandas as pd
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

vectorizer = TfidfVectorizer(max_features=10000)
X = vectorizer.fit_transform(train["full_text"].fillna(""))
X_test = vectorizer.transform(test["full_text"].fillna(""))
y = train["score"]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = GradientBoostingRegressor(n_estimators=100, subsample=0.5, max_features=0.1, random_state=0)
model.fit(X_fit, y_fit)


def scores(essays) -> np.ndarray:
    return np.clip(np.round(model.predict(essays)), 1, 6).astype(int)


score = cohen_kappa_score(y_valid, scores(X_valid), weights="quadratic")
print(f"validation qwk: {score:.4f}")

submission = pd.DataFrame({"essay_id": test["essay_id"], "score": scores(X_test)})
submission.to_csv("submission.csv", index=False)
