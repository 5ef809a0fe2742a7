"""A linear support-vector machine on TF-IDF of words, pairs of words and pieces of words."""

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

features = make_union(
    TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
    TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=3),
)
model = make_pipeline(features, LinearSVC(C=2.0, class_weight="balanced", random_state=0))
predictions = model.fit(train["story"], train["topic"]).predict(test["story"])
pd.DataFrame({"id": test["id"], "topic": predictions}).to_csv("submission.csv", index=False)
