"""Predict the similarity of phrases with ridge regression on shared words and letters."""

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv").fillna("")
test = pd.read_csv("data/test.csv").fillna("")

words = TfidfVectorizer(token_pattern=r"\S+").fit(pd.concat([train["anchor"], train["target"]]))
letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3)).fit(words.get_feature_names_out())


def features(pairs: pd.DataFrame) -> np.ndarray:
    """Cosine similarity of words and of letters, and the phrases' lengths, [pairs, 4]."""
    columns = [pairs["anchor"].str.len(), pairs["target"].str.len()]
    for vectorizer in (words, letters):
        anchor, target = vectorizer.transform(pairs["anchor"]), vectorizer.transform(pairs["target"])
        columns.append(np.asarray(anchor.multiply(target).sum(axis=1)).ravel())
    return np.column_stack(columns)


X, X_test, y = features(train), features(test), train["score"]
X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = Ridge(alpha=1.0)
model.fit(X_fit, y_fit)

score = np.corrcoef(y_valid, model.predict(X_valid))[0, 1]
print(f"validation pearson: {score:.4f}")

submission = pd.DataFrame({"id": test["id"], "score": model.predict(X_test)})
submission.to_csv("submission.csv", index=False)
