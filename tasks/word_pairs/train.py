"""Guess how alike two words are from their letters with a linear model."""

import pandas as pd
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv").head(300)
test = pd.read_csv("data/test.csv")

target = "similarity"


def letters(frame: pd.DataFrame) -> pd.DataFrame:
    """Lengths, and the share of letters that two words have in common."""
    pairs = [(set(a.lower()), set(b.lower())) for a, b in zip(frame["first"], frame["second"], strict=True)]
    return pd.DataFrame(
        {
            "shared": [len(a & b) / len(a | b) for a, b in pairs],
            "length": frame["first"].str.len() + frame["second"].str.len(),
            "difference": (frame["first"].str.len() - frame["second"].str.len()).abs(),
            "wordsim": (frame["collection"] == "wordsim").astype(int),
        }
    )


X = letters(train)
X_test = letters(test)
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.4, random_state=0)

model = Ridge(alpha=1.0)
model.fit(X_fit, y_fit)

valid_predictions = model.predict(X_valid)
score = spearmanr(y_valid, valid_predictions).statistic
print(f"validation spearman: {score:.4f}")

predictions = model.predict(X_test)
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
