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


def problem_type(metric: str) -> str:
    """ "classification" or "regression". Raises ValueError for a metric that no script of the space computes."""
    if metric not in SCORES:
        raise ValueError(f"pipelines have no metric {metric!r}; they have {', '.join(SCORES)}")
    return "classification" if metric in _CLASSIFICATION else "regression"
