"""Tell authors apart with logistic regression on TF-IDF."""

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

vectorizer = TfidfVectorizer(stop_words="english")
X = vectorizer.fit_transform(train["text"].fillna(""))
X_test = vectorizer.transform(test["text"].fillna(""))
y = train["author"]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = LogisticRegression(C=3.0, max_iter=500)
model.fit(X_fit, y_fit)

score = log_loss(y_valid, model.predict_proba(X_valid))
print(f"validation log loss: {score:.4f}")

submission = pd.DataFrame(model.predict_proba(X_test), columns=model.classes_)
submission.insert(0, "id", test["id"])
submission.to_csv("submission.csv", index=False)
