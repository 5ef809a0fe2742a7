"""Guess the year of an artwork from common words of its title and medium."""

import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv").head(1200)
test = pd.read_csv("data/test.csv")

target = "year"
text_columns = ["title", "medium"]
train_text = train[text_columns].fillna("").agg(" ".join, axis=1)
test_text = test[text_columns].fillna("").agg(" ".join, axis=1)

vectorizer = CountVectorizer(max_features=200)
X = vectorizer.fit_transform(train_text)
X_test = vectorizer.transform(test_text)
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.4, random_state=0)

model = Ridge(alpha=10.0)
model.fit(X_fit, y_fit)

valid_predictions = model.predict(X_valid)
score = mean_absolute_error(y_valid, valid_predictions)
print(f"validation mae: {score:.4f}")

predictions = model.predict(X_test)
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
