"""Forest on numbers and on the genres of neighbours, one and more links away, spread through the graph."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array, diags_array, eye_array
from scipy.sparse.linalg import eigsh
from sklearn.ensemble import ExtraTreesClassifier

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")
edges = pd.read_csv("data/edges.csv").to_numpy()
rows = pd.concat([train, test], ignore_index=True)
n = len(rows)
assert (rows["id"] == np.arange(n)).all()

both = np.concatenate([edges, edges[:, ::-1]])
graph = coo_array((np.ones(len(both)), both.T), shape=(n, n)).tocsr()
degree = np.asarray(graph.sum(axis=1)).ravel()
scale = diags_array(1 / np.sqrt(degree + 1))
smooth = scale @ (graph + eye_array(n)) @ scale
classes, codes = np.unique(train["genre"], return_inverse=True)
labels = np.zeros((n, len(classes)))
labels[np.arange(len(train)), codes] = 1
_, embedding = eigsh(smooth, k=32, v0=np.ones(n))


def spread(start: np.ndarray) -> np.ndarray:
    """Labels [n, classes] handed on along links, the start kept in part, at three reaches."""
    reaches = []
    for keep in (0.6, 0.3, 0.1):
        now = start
        for _ in range(12):
            now = (1 - keep) * (smooth @ now) + keep * start
        reaches.append(now)
    return np.hstack([graph @ start, *reaches])


# A training row must not see its own label: it is held out, fold by fold, of what is spread.
fold = np.random.default_rng(0).integers(0, 20, len(train))
known = spread(labels)
for number in range(20):
    held = np.flatnonzero(fold == number)
    start = labels.copy()
    start[held] = 0
    known[held] = spread(start)[held]
numbers = np.log1p(rows.drop(columns=["id", "genre"]).fillna(0).to_numpy())
X = np.hstack([numbers, degree[:, None], known, embedding])

model = ExtraTreesClassifier(n_estimators=800, max_features=0.3, min_samples_leaf=2, random_state=0)
model.fit(X[: len(train)], train["genre"])
predictions = model.predict(X[len(train) :])
pd.DataFrame({"id": test["id"], "genre": predictions}).to_csv("submission.csv", index=False)
