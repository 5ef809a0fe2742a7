"""Find insults with logistic regression on TF-IDF of the most frequent words."""

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

vectorizer = TfidfVectorizer(max_features=500)
X = vectorizer.fit_transform(train["Comment"].fillna(""))
X_test = vectorizer.transform(test["Comment"].fillna(""))
y = train["Insult"]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = LogisticRegression(max_iter=500)
model.fit(X_fit, y_fit)

score = roc_auc_score(y_valid, model.predict_proba(X_valid)[:, 1])
print(f"validation auc: {score:.4f}")

submission = pd.DataFrame({"id": test["id"], "Insult": model.predict_proba(X_test)[:, 1]})
submission.to_csv("submission.csv", index=False)
