"""Support-vector regression on the two vectors' products and differences, with their cosine, by collection."""

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")
rows = pd.concat([train, test], ignore_index=True)
first, second = (
    np.concatenate([np.load(f"data/{part}_{which}_vectors.npy").astype(float) for part in ("train", "test")])
    for which in ("first", "second")
)
pca = PCA(60, random_state=0).fit(np.concatenate([first, second]))


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


a, b = unit(first), unit(second)
cosine = (a * b).sum(axis=1)
p, q = unit(pca.transform(first)), unit(pca.transform(second))
wordsim = (rows["collection"] == "wordsim").to_numpy(float)
near = np.stack([cosine, (p * q).sum(axis=1), np.abs(a - b).sum(axis=1), wordsim, wordsim * cosine], axis=1)
scaled = StandardScaler().fit_transform(near)
X = np.hstack([scaled, 2.0 * (p * q), 1.0 * np.abs(p - q)])

n = len(train)
model = make_pipeline(SVR(C=3.0, gamma=0.05, epsilon=0.3))
predictions = model.fit(X[:n], train["similarity"]).predict(X[n:])
pd.DataFrame({"id": test["id"], "similarity": predictions}).to_csv("submission.csv", index=False)
