"""Writes the starter of a task that is made of a table: a plain linear model that runs as it is."""

from __future__ import annotations

import pandas as pd

from mlagent_jax.environment.metrics import Metric, Prediction, TrueValues

MOST_WORDS = 20  # different values of a column that becomes one column for each

SCORES = {
    "accuracy": "accuracy_score(y_valid, {p})",
    "macro_f1": 'f1_score(y_valid, {p}, average="macro")',
    "auc": "roc_auc_score(y_valid, {p})",
    "binary_accuracy": "accuracy_score(y_valid, {p} > 0.5)",
    "log_loss": "log_loss(y_valid, {p})",
    "mae": "mean_absolute_error(y_valid, {p})",
    "rmse": "root_mean_squared_error(y_valid, {p})",
    "rmsle": "root_mean_squared_log_error(y_valid, {p})",
    "qwk": 'cohen_kappa_score(y_valid, {p}, weights="quadratic")',
    "pearson": "pearsonr(y_valid, {p}).statistic",
    "spearman": "spearmanr(y_valid, {p}).statistic",
}


def starter(features: pd.DataFrame, target: str, metric: Metric) -> str:
    """Text of train.py: numbers, columns of few words, or, if there are neither, the words of the text."""
    numbers = [name for name in features.columns if pd.api.types.is_numeric_dtype(features[name])]
    others = [name for name in features.columns if name not in numbers]
    words = [name for name in others if features[name].nunique() <= MOST_WORDS]
    text = not numbers and not words
    columns = others if text else numbers + words
    classifies = metric.prediction is Prediction.CLASS
    probability = metric.truth in (TrueValues.BINARY, TrueValues.BOTH_CLASSES)
    score = SCORES[metric.name].format(p="valid_predictions")
    function = score.split("(")[0]
    module = "scipy.stats" if function in ("pearsonr", "spearmanr") else "sklearn.metrics"
    model = "LogisticRegression(max_iter=500)" if classifies or probability else "Ridge(alpha=1.0)"
    predict = _predict(metric, probability)
    imports = {
        f"from {module} import {function}",
        f"from sklearn.linear_model import {model.split('(')[0]}",
        "from sklearn.model_selection import train_test_split",
        *(["from sklearn.feature_extraction.text import CountVectorizer"] if text else _SCALING),
    }
    head = "import numpy as np\nimport pandas as pd" if "np." in predict else "import pandas as pd"
    return _SCRIPT.format(
        target=repr(target),
        imports="\n".join([head, *sorted(imports)]),
        features=(_WORDS if text else _TABLE).format(columns=columns),
        model=model if text else f"make_pipeline(StandardScaler(), {model})",
        valid=predict.format(X="X_valid"),
        test=predict.format(X="X_test"),
        score=score,
        metric=metric.name,
    )


def _predict(metric: Metric, probability: bool) -> str:
    if probability:
        return "model.predict_proba({X})[:, 1]"
    if metric.prediction is Prediction.NON_NEGATIVE:
        return "np.clip(model.predict({X}), 0, None)"
    if metric.prediction is Prediction.WHOLE:
        return "np.clip(np.round(model.predict({X})), y.min(), y.max()).astype(int)"
    return "model.predict({X})"


_SCALING = [
    "from sklearn.pipeline import make_pipeline",
    "from sklearn.preprocessing import StandardScaler",
]

_TABLE = """\
features = {columns}
rows = pd.get_dummies(pd.concat([train[features], test[features]]), dtype=float).astype(float)
rows = rows.fillna(rows.median()).fillna(0)
X = rows[: len(train)]
X_test = rows[len(train) :]"""

_WORDS = """\
text_columns = {columns}
train_text = train[text_columns].fillna("").agg(" ".join, axis=1)
test_text = test[text_columns].fillna("").agg(" ".join, axis=1)

vectorizer = CountVectorizer(max_features=500, token_pattern=r"\\w+")
X = vectorizer.fit_transform(train_text)
X_test = vectorizer.transform(test_text)"""

_SCRIPT = '''"""A linear model, to begin with."""

{imports}

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

target = {target}
{features}
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.3, random_state=0)

model = {model}
model.fit(X_fit, y_fit)

valid_predictions = {valid}
score = {score}
print(f"validation {metric}: {{score:.4f}}")

predictions = {test}
submission = pd.DataFrame({{"id": test["id"], target: predictions}})
submission.to_csv("submission.csv", index=False)
'''
