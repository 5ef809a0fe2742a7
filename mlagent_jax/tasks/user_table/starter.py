"""Writes the starter of a task that is made of a table: a plain linear model that runs as it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from mlagent_jax.grading.dtype_inference import MISSING
from mlagent_jax.grading.metrics import Metric, Prediction
from mlagent_jax.tasks.user_table.column_kinds import needs_telling
from mlagent_jax.tasks.user_table.target import BINARY

MOST_WORDS = 20  # different values of a column that becomes one column for each
VALIDATION = 0.3  # of the training rows
MOST_NAMED = 40  # columns that the script lists

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


def told(rows: pd.DataFrame, numbers: Collection[str]) -> tuple[list[str], bool]:
    """What has to be told to pandas for it to read each cell as it is.

    rows: text. Returns the columns whose dtype is str, and whether words such as NA are not missing.
    """
    texts = [name for name in rows.columns if name not in numbers]
    as_text = [name for name in texts if needs_telling(rows[name])]
    return as_text, any(not MISSING.isdisjoint(rows[name]) for name in as_text)


def starter(
    rows: pd.DataFrame, numbers: Collection[str], target: str, metric: Metric, identity: str, stratify: bool
) -> str:
    """Text of train.py: numbers, columns of few words, or, if there are neither, the words of the text.

    rows: text, with the target. numbers: the columns that are numbers. stratify: whether each class has the two
    training rows that it needs to be on both sides of the validation split.
    """
    features = rows.drop(columns=target)
    figures = [name for name in features.columns if name in numbers]
    others = [name for name in features.columns if name not in numbers]
    words = [name for name in others if features[name].nunique() <= MOST_WORDS]
    text = not figures and not words
    columns = others if text else figures + words
    classifies = metric.prediction is Prediction.CLASS
    probability = metric.truth in BINARY
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
    has_returns = classifies and rows[target].str.contains("\r").any()
    named = _named([identity, *features.columns], columns)
    return _SCRIPT.format(
        imports="\n".join([head, *sorted(imports)]),
        reading=_reading(rows, numbers, target),
        target=repr(target),
        features=_WORDS.format(columns=named, tokens=_tokens(features[columns]))
        if text
        else _TABLE.format(columns=named, separator=_separator(features, figures, words)),
        stratify=", stratify=y" if stratify else "",
        model=model if text else f"make_pipeline(StandardScaler(), {model})",
        valid=predict.format(X="X_valid"),
        test=predict.format(X="X_test"),
        score=score,
        metric=metric.name,
        identity=repr(identity),
        validation=VALIDATION,
        quoting=", quoting=1" if has_returns else "",
    )


def _reading(rows: pd.DataFrame, numbers: Collection[str], target: str) -> str:
    """The lines that read train.csv and test.csv."""
    as_text, words = told(rows, numbers)
    if target in as_text and not words and rows[target].str.fullmatch(r"0|-?[1-9][0-9]{0,14}").all():
        as_text.remove(target)  # as whole numbers they are written as they were
    options = {"dtype": dict.fromkeys(as_text, str)} if as_text else {}
    arguments = [f"{{{', '.join(f'{name!r}: str' for name in as_text)}}}"] if options else []
    lines = [f"dtype={arguments[0]}"] if arguments else []
    lines += ['keep_default_na=False, na_values=[""]'] if words else []
    if not lines:
        return 'train = pd.read_csv("data/train.csv")\ntest = pd.read_csv("data/test.csv")'
    told_so = (
        "# Told so, pandas reads text as it stands: 007, NA or True are not a number, nothing or a boolean.\n"
    )
    return (
        f"{told_so}reading = dict({', '.join(lines)})\n"
        'train = pd.read_csv("data/train.csv", **reading)\ntest = pd.read_csv("data/test.csv", **reading)'
    )


def _named(everything: Sequence[str], columns: Sequence[str]) -> str:
    """A list of columns, or of those that they are not if that is shorter."""
    left_out = [name for name in everything if name not in set(columns)]
    if len(columns) <= MOST_NAMED or len(left_out) >= len(columns):
        return repr(list(columns))
    return f"[name for name in test.columns if name not in {left_out!r}]"


def _tokens(features: pd.DataFrame) -> str:
    """What text is counted by: words, or its signs if most rows have no word."""
    joined = features.agg(" ".join, axis=1)
    return r'token_pattern=r"\w+"' if joined.str.contains(r"\w").mean() > 0.5 else 'analyzer="char"'


def _separator(features: pd.DataFrame, figures: list[str], words: list[str]) -> str:
    """What stands between a column and its word, so that no two of the new columns are called the same."""
    for separator in ("_", "=", " is ", " has the value "):
        made = [f"{name}{separator}{word}" for name in words for word in features[name].unique() if word]
        if len({*figures, *made}) == len(figures) + len(made):
            return "" if separator == "_" else f", prefix_sep={separator!r}"
    raise ValueError(f"no separator tells the columns {words} from each other")


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
rows = pd.get_dummies(pd.concat([train[features], test[features]]), dtype=float{separator}).astype(float)
rows = rows.fillna(rows.median()).fillna(0)
X = rows[: len(train)]
X_test = rows[len(train) :]"""

_WORDS = """\
text_columns = {columns}
train_text = train[text_columns].fillna("").agg(" ".join, axis=1)
test_text = test[text_columns].fillna("").agg(" ".join, axis=1)

vectorizer = CountVectorizer(max_features=500, {tokens})
X = vectorizer.fit_transform(train_text)
X_test = vectorizer.transform(test_text)"""

_SCRIPT = '''"""A linear model, to begin with."""

{imports}

{reading}

target = {target}
{features}
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size={validation}, random_state=0{stratify})

model = {model}
model.fit(X_fit, y_fit)

valid_predictions = {valid}
score = {score}
print(f"validation {metric}: {{score:.4f}}")

predictions = {test}
submission = pd.DataFrame({{{identity}: test[{identity}], target: predictions}})
submission.to_csv("submission.csv", index=False{quoting})
'''
