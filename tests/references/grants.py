"""Boosted trees on all columns, words as codes and as counts, averaged over seeds."""

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")
y = train.pop("successful")

rows = pd.concat([train, test]).drop(columns="id").reset_index(drop=True)
for column in rows.select_dtypes(exclude="number").columns:
    rows[f"{column}_count"] = rows[column].map(rows[column].value_counts())
    rows[column] = rows[column].astype("category").cat.codes
X, X_test = rows[: len(train)], rows[len(train) :]

predictions = np.zeros(len(test))
for seed in range(3):
    model = HistGradientBoostingClassifier(
        max_iter=400,
        learning_rate=0.05,
        max_leaf_nodes=16,
        min_samples_leaf=10,
        max_features=0.3,
        random_state=seed,
    )
    predictions += model.fit(X, y).predict_proba(X_test)[:, 1] / 3
pd.DataFrame({"id": test["id"], "successful": predictions}).to_csv("submission.csv", index=False)
