"""The rules by which the authors of the paper's tasks grade them, reimplemented.

Each grader takes a submission and the answers as tables, and gives the score, or raises. For the tasks of
MLE-bench its checks are those of that benchmark's graders, in which any exception means that there is no score;
the scores are by the functions of scikit-learn and scipy that they call. It is their rules, not their code.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics

Grader = Callable[[pd.DataFrame, pd.DataFrame], float]


class Refused(Exception):
    pass


def need(fine: object) -> None:
    if not fine:
        raise Refused


def aligned(
    submission: pd.DataFrame, answers: pd.DataFrame, id_column: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Submission and answers by id, which must be the same."""
    need(set(answers.columns) <= set(submission.columns))
    need(len(submission) == len(answers))
    given, true = (frame.sort_values(id_column, ignore_index=True) for frame in (submission, answers))
    need((given[id_column] == true[id_column]).all())
    return given, true


def one_column(id_column: str, target: str, score: Callable, check: Callable | None = None) -> Grader:
    def grade(submission: pd.DataFrame, answers: pd.DataFrame) -> float:
        given, true = aligned(submission, answers[[id_column, target]], id_column)
        if check:
            need(check(given[target]))
        return score(true[target].to_numpy(), given[target].to_numpy())

    return grade


def exactly(columns: list[str], id_column: str, score: Callable, check: Callable | None = None) -> Grader:
    """For several target columns and nothing else."""

    def grade(submission: pd.DataFrame, answers: pd.DataFrame) -> float:
        need(set(submission.columns) == {id_column, *columns})
        given, true = aligned(submission, answers, id_column)
        if check:
            need(check(given[columns]))
        return score(true[columns].to_numpy(), given[columns].to_numpy())

    return grade


def probabilities(values: pd.Series) -> bool:
    return bool(pd.to_numeric(values).between(0, 1).all())


def distributions(values: pd.DataFrame) -> bool:
    fine = ((values >= 0) & (values <= 1)).all(axis=None)
    return bool(fine and np.isclose(values.sum(axis=1), 1, atol=1e-6).all())


def mean_auc(true: np.ndarray, given: np.ndarray) -> float:
    return float(np.mean([metrics.roc_auc_score(t, g) for t, g in zip(true.T, given.T, strict=True)]))


def jigsaw(submission: pd.DataFrame, answers: pd.DataFrame) -> float:
    """Comments of -1 do not count."""
    given, true = aligned(submission, answers, "id")
    scored = true.drop(columns="id").sum(axis=1) >= 0
    kinds = true.columns.drop("id")
    return mean_auc(true.loc[scored, kinds].to_numpy(), given.loc[scored, kinds].to_numpy())


def nomad(submission: pd.DataFrame, answers: pd.DataFrame) -> float:
    """By the order of rows, not by ids."""
    targets = ["formation_energy_ev_natom", "bandgap_energy_ev"]
    need(set(targets) <= set(submission.columns) and len(submission) == len(answers))
    need((submission[targets] >= 0).all(axis=None))  # as scikit-learn did when MLE-bench was written
    return float(np.mean([metrics.root_mean_squared_log_error(answers[t], submission[t]) for t in targets]))


def whales(submission: pd.DataFrame, answers: pd.DataFrame) -> float:
    """Mean average precision at 5, with one true label: 1 / its rank."""
    need(set(submission.columns) == {"Image", "Id"})
    given, true = aligned(submission, answers, "Image")
    ranked = given["Id"].astype(str).str.split(" ").str[:5]
    hits = [
        1 / (1 + labels.index(label)) if label in labels else 0
        for labels, label in zip(ranked, true["Id"], strict=True)
    ]
    return float(np.mean(hits))


def pages(submission: pd.DataFrame, answers: pd.DataFrame) -> float:
    given, true = aligned(submission, answers, "id")
    return metrics.root_mean_squared_error(given["value"].astype(float), true["value"])


def kappa(true: np.ndarray, given: np.ndarray) -> float:
    return metrics.cohen_kappa_score(given, true, weights="quadratic")


def leaves(submission: pd.DataFrame, answers: pd.DataFrame) -> float:
    species = answers.columns.drop("id").tolist()
    return exactly(species, "id", metrics.log_loss, distributions)(submission, answers)


MLE_BENCH: dict[str, Grader] = {
    "aerial-cactus-identification": one_column("id", "has_cactus", metrics.roc_auc_score, probabilities),
    "dogs-vs-cats-redux-kernels-edition": one_column("id", "label", metrics.log_loss, probabilities),
    "plant-pathology-2020-fgvc7": exactly(
        ["healthy", "multiple_diseases", "rust", "scab"], "image_id", mean_auc
    ),
    "nomad2018-predict-transparent-conductors": nomad,
    "spaceship-titanic": one_column("PassengerId", "Transported", metrics.accuracy_score),
    "denoising-dirty-documents": pages,
    "leaf-classification": leaves,
    "statoil-iceberg-classifier-challenge": one_column("id", "is_iceberg", metrics.log_loss, probabilities),
    "whale-categorization-playground": whales,
    "learning-agency-lab-automated-essay-scoring-2": one_column("essay_id", "score", kappa),
    "detecting-insults-in-social-commentary": one_column(
        "Comment", "Insult", metrics.roc_auc_score, probabilities
    ),
    "spooky-author-identification": exactly(["EAP", "HPL", "MWS"], "id", metrics.log_loss, distributions),
    "jigsaw-toxic-comment-classification-challenge": jigsaw,
    "us-patent-phrase-to-phrase-matching": one_column("id", "score", lambda t, g: stats.pearsonr(t, g)[0]),
    "tabular-playground-series-dec-2021": one_column("Id", "Cover_Type", metrics.accuracy_score),
}
"""By MLE-bench's rules."""

OTHERS: dict[str, Grader] = {
    "cifar-10": one_column("id", "label", metrics.accuracy_score),
    "home-data-for-ml-course": one_column("Id", "SalePrice", metrics.mean_absolute_error),
    "feedback-prize-english-language-learning": exactly(
        ["cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions"],
        "text_id",
        lambda true, given: float(np.sqrt(((true - given) ** 2).mean(axis=0)).mean()),
    ),
}
"""By what the competition or the data set says; ogbn-arxiv has an evaluator of its own."""
