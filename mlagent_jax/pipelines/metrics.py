"""How scripts compute a metric on their validation rows, and what it asks of predictions."""

from __future__ import annotations

SCORES = {
    "accuracy": "accuracy_score({truth}, valid_predictions)",
    "macro_f1": 'f1_score({truth}, valid_predictions, average="macro")',
    "auc": "roc_auc_score({truth}, valid_predictions)",
    "mae": "mean_absolute_error({truth}, valid_predictions)",
    "rmse": "root_mean_squared_error({truth}, valid_predictions)",
    "rmsle": "root_mean_squared_log_error({truth}, valid_predictions)",
    "spearman": "spearmanr({truth}, valid_predictions).statistic",
}
_CLASSIFICATION = ("accuracy", "macro_f1", "auc")


def goal(metric: str) -> str:
    return "classification" if metric in _CLASSIFICATION else "regression"
