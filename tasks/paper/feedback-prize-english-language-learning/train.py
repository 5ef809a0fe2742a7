"""Rate essays like the five most similar ones, by TF-IDF."""

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsRegressor

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

targets = ["cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions"]

vectorizer = TfidfVectorizer(max_features=1000)
X = vectorizer.fit_transform(train["full_text"].fillna(""))
X_test = vectorizer.transform(test["full_text"].fillna(""))
y = train[targets].to_numpy()

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = KNeighborsRegressor(n_neighbors=5)
model.fit(X_fit, y_fit)

score = np.mean(root_mean_squared_error(y_valid, model.predict(X_valid), multioutput="raw_values"))
print(f"validation mcrmse: {score:.4f}")

submission = pd.DataFrame(model.predict(X_test), columns=targets)
submission.insert(0, "text_id", test["text_id"])
submission.to_csv("submission.csv", index=False)
