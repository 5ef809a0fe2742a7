"""Moods of tweets; found by exploration of the space of pipelines (see m_best_source)."""

import pandas as pd
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectPercentile, f_classif
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

target = "sentiment"
text_columns = test.columns.drop("id").tolist()
X = train[text_columns].fillna("").agg(" ".join, axis=1)
X_test = test[text_columns].fillna("").agg(" ".join, axis=1)
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = make_pipeline(
    make_union(
        TfidfVectorizer(max_features=300, min_df=2, sublinear_tf=True),
        TfidfVectorizer(max_features=3000, analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
    ),
    SelectPercentile(f_classif, percentile=50),
    Normalizer(),
    BaggingClassifier(
        LinearSVC(C=0.1, class_weight="balanced", random_state=0),
        n_estimators=5,
        random_state=0,
    ),
)
model.fit(X_fit, y_fit)

valid_predictions = model.predict(X_valid)
score = f1_score(y_valid, valid_predictions, average="macro")
print(f"validation macro_f1: {score:.4f}")

model.fit(X, y)
predictions = model.predict(X_test)
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
