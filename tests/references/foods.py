"""Logistic regression on TF-IDF of words, pairs of words and pieces of words."""

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")
y = (train["score"] == "great").to_numpy()

features = make_union(
    TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
    TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=3),
)
model = make_pipeline(features, LogisticRegression(C=8, class_weight="balanced", max_iter=1000))
great = model.fit(train["review"], y).predict(test["review"])
predictions = np.where(great, "great", "other")
pd.DataFrame({"id": test["id"], "score": predictions}).to_csv("submission.csv", index=False)
