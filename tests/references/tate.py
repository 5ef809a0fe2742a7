"""A support-vector regression on the label's words and, with as much weight, the artist as one token."""

import pandas as pd
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import SVR

train = pd.read_csv("data/train.csv").fillna("")
test = pd.read_csv("data/test.csv").fillna("")


def label(frame: pd.DataFrame) -> pd.Series:
    artist = frame["artist"].str.replace(r"\W+", "_", regex=True)
    return artist + " " + artist + " " + frame["title"] + " " + frame["medium"]


words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
artist = TfidfVectorizer(token_pattern=".+")
X = hstack([words.fit_transform(label(train)), artist.fit_transform(train["artist"])]).tocsr()
X_test = hstack([words.transform(label(test)), artist.transform(test["artist"])]).tocsr()

model = SVR(C=20, gamma=0.5, epsilon=0.1).fit(X, train["year"])
predictions = model.predict(X_test)
pd.DataFrame({"id": test["id"], "year": predictions}).to_csv("submission.csv", index=False)
