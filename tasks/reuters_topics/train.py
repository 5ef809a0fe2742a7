"""Topics of newswire stories."""

import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

target = "topic"
text_columns = test.columns.drop("id").tolist()
X = train[text_columns].fillna("").agg(" ".join, axis=1)
X_test = test[text_columns].fillna("").agg(" ".join, axis=1)
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = make_pipeline(
    CountVectorizer(max_features=100),
    TruncatedSVD(n_components=20, random_state=0),
    LinearSVC(C=1.0, class_weight="balanced", random_state=0),
)
model.fit(X_fit, y_fit)

valid_predictions = model.predict(X_valid)
score = f1_score(y_valid, valid_predictions, average="macro")
print(f"validation macro_f1: {score:.4f}")

model.fit(X, y)
predictions = model.predict(X_test)
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
