"""Find toxic comments with a logistic regression for each kind on TF-IDF."""

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

targets = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]

vectorizer = TfidfVectorizer(max_features=10000)
X = vectorizer.fit_transform(train["comment_text"].fillna(""))
X_test = vectorizer.transform(test["comment_text"].fillna(""))

fit, valid = train_test_split(np.arange(len(train)), test_size=0.2, random_state=0)

submission = test[["id"]].copy()
scores = []
for target in targets:
    model = LogisticRegression(solver="liblinear")
    model.fit(X[fit], train[target].iloc[fit])
    scores.append(roc_auc_score(train[target].iloc[valid], model.predict_proba(X[valid])[:, 1]))
    submission[target] = model.predict_proba(X_test)[:, 1]

print(f"validation mean column auc: {np.mean(scores):.4f}")
submission.to_csv("submission.csv", index=False)
