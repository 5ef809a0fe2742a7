"""Tell the mood of tweets by counting a few words."""

import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv").head(500)
test = pd.read_csv("data/test.csv")

target = "sentiment"
text_columns = ["text"]
train_text = train[text_columns].fillna("").agg(" ".join, axis=1)
test_text = test[text_columns].fillna("").agg(" ".join, axis=1)

vectorizer = CountVectorizer(max_features=100)
X = vectorizer.fit_transform(train_text)
X_test = vectorizer.transform(test_text)
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.4, random_state=0)

model = LogisticRegression(max_iter=200)
model.fit(X_fit, y_fit)

valid_predictions = model.predict(X_valid)
score = f1_score(y_valid, valid_predictions, average="macro")
print(f"validation macro_f1: {score:.4f}")

predictions = model.predict(X_test)
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
