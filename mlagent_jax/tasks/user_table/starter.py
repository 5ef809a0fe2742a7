"""Writes the starter of a task made from a table: a plain linear model that runs as it is. Agents read the script."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from mlagent_jax.grading.metrics import Metric, Prediction
from mlagent_jax.tasks.user_table.pandas_options import pandas_options
from mlagent_jax.tasks.user_table.target import BINARY

MAX_CATEGORIES = 20  # of a column that is one-hot encoded
VALIDATION_SHARE = 0.3  # of the training rows
MAX_NAMED_COLUMNS = 40  # that the script lists by name

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


def starter_script(
    rows: pd.DataFrame, numbers: Collection[str], target: str, metric: Metric, identity: str, stratify: bool
) -> str:
    """The text of train.py. Its features are numeric and categorical columns; if there are none, word counts.

    Args:
        rows: text, with the target.
        numbers: the columns whose cells are numbers.
        identity: the name of the id column.
        stratify: split the validation rows off by class, which needs two training rows of each class.
    """
    features = rows.drop(columns=target)
    numeric = [name for name in features.columns if name in numbers]
    texts = [name for name in features.columns if name not in numbers]
    categorical = [name for name in texts if features[name].nunique() <= MAX_CATEGORIES]
    counts_words = not numeric and not categorical
    columns = texts if counts_words else numeric + categorical
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
        *(["from sklearn.feature_extraction.text import CountVectorizer"] if counts_words else _SCALING),
    }
    head = "import numpy as np\nimport pandas as pd" if "np." in predict else "import pandas as pd"
    has_returns = classifies and rows[target].str.contains("\r").any()
    listed = _column_list([identity, *features.columns], columns)
    return _SCRIPT.format(
        imports="\n".join([head, *sorted(imports)]),
        reading=_reading(rows, numbers, target),
        target=repr(target),
        features=_WORDS.format(columns=listed, tokens=_tokens(features[columns]))
        if counts_words
        else _TABLE.format(columns=listed, separator=_separator(features, numeric, categorical)),
        stratify=", stratify=y" if stratify else "",
        model=model if counts_words else f"make_pipeline(StandardScaler(), {model})",
        valid=predict.format(X="X_valid"),
        test=predict.format(X="X_test"),
        score=score,
        metric=metric.name,
        identity=repr(identity),
        validation=VALIDATION_SHARE,
        quoting=", quoting=1" if has_returns else "",
    )


def _reading(rows: pd.DataFrame, numbers: Collection[str], target: str) -> str:
    """The lines that read train.csv and test.csv."""
    options = pandas_options(rows, numbers)
    text_columns = list(options.text_columns)
    is_whole = rows[target].str.fullmatch(r"0|-?[1-9][0-9]{0,14}").all()
    if target in text_columns and not options.has_na_words and is_whole:
        text_columns.remove(target)  # pandas writes these whole numbers as it read them
    arguments = []
    if text_columns:
        arguments.append(f"dtype={{{', '.join(f'{name!r}: str' for name in text_columns)}}}")
    if options.has_na_words:
        arguments.append('keep_default_na=False, na_values=[""]')
    if not arguments:
        return 'train = pd.read_csv("data/train.csv")\ntest = pd.read_csv("data/test.csv")'
    return (
        "# Told so, pandas reads text as it stands: 007, NA or True are not a number, nothing or a boolean.\n"
        f"reading = dict({', '.join(arguments)})\n"
        'train = pd.read_csv("data/train.csv", **reading)\ntest = pd.read_csv("data/test.csv", **reading)'
    )


def _column_list(all_columns: Sequence[str], columns: Sequence[str]) -> str:
    """An expression for the list of columns; if there are many, by the ones to leave out where those are fewer."""
    left_out = [name for name in all_columns if name not in set(columns)]
    if len(columns) <= MAX_NAMED_COLUMNS or len(left_out) >= len(columns):
        return repr(list(columns))
    return f"[name for name in test.columns if name not in {left_out!r}]"


def _tokens(features: pd.DataFrame) -> str:
    """The vectorizer's option: count words, or characters if most rows have no word."""
    joined = features.agg(" ".join, axis=1)
    return r'token_pattern=r"\w+"' if joined.str.contains(r"\w").mean() > 0.5 else 'analyzer="char"'


def _separator(features: pd.DataFrame, numeric: list[str], categorical: list[str]) -> str:
    """The argument of `get_dummies` for a separator that makes all names of one-hot columns distinct."""
    for separator in ("_", "=", " is ", " has the value "):
        names = [
            f"{name}{separator}{word}" for name in categorical for word in features[name].unique() if word
        ]
        if len({*numeric, *names}) == len(numeric) + len(names):
            return "" if separator == "_" else f", prefix_sep={separator!r}"
    raise ValueError(f"no separator gives the one-hot columns of {categorical} distinct names")


def _predict(metric: Metric, probability: bool) -> str:
    """An expression for valid predictions, with {X} for the features."""
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
