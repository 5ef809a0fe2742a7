"""Where the names that edits use come from: imports and helper functions."""

from __future__ import annotations

import ast
import functools
from importlib import resources

_MODULES = {
    "scipy.ndimage": "affine_transform gaussian_filter",
    "sklearn.calibration": "CalibratedClassifierCV",
    "sklearn.cluster": "KMeans",
    "sklearn.compose": "TransformedTargetRegressor make_column_selector make_column_transformer",
    "sklearn.decomposition": "PCA TruncatedSVD",
    "sklearn.discriminant_analysis": "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis",
    "sklearn.ensemble": """
        AdaBoostClassifier AdaBoostRegressor BaggingClassifier BaggingRegressor
        ExtraTreesClassifier ExtraTreesRegressor HistGradientBoostingClassifier HistGradientBoostingRegressor
        RandomForestClassifier RandomForestRegressor VotingClassifier VotingRegressor""",
    "sklearn.feature_extraction.text": "CountVectorizer HashingVectorizer TfidfVectorizer",
    "sklearn.feature_selection": "SelectKBest VarianceThreshold f_classif f_regression",
    "sklearn.impute": "SimpleImputer",
    "sklearn.kernel_approximation": "Nystroem",
    "sklearn.linear_model": """
        ElasticNet HuberRegressor Lasso LogisticRegression Ridge RidgeClassifier SGDClassifier SGDRegressor""",
    "sklearn.model_selection": "GridSearchCV",
    "sklearn.multiclass": "OneVsRestClassifier",
    "sklearn.naive_bayes": "ComplementNB GaussianNB MultinomialNB",
    "sklearn.neighbors": "KNeighborsClassifier KNeighborsRegressor NearestCentroid",
    "sklearn.neural_network": "MLPClassifier MLPRegressor",
    "sklearn.pipeline": "make_pipeline make_union",
    "sklearn.preprocessing": """
        Binarizer FunctionTransformer MaxAbsScaler MinMaxScaler Normalizer OneHotEncoder OrdinalEncoder
        PolynomialFeatures QuantileTransformer RobustScaler SplineTransformer StandardScaler TargetEncoder""",
    "sklearn.svm": "SVC SVR LinearSVC LinearSVR",
    "sklearn.tree": "DecisionTreeClassifier DecisionTreeRegressor",
    # These are not installed: the honest mistake of a person who forgets which packages there are.
    "catboost": "CatBoostClassifier CatBoostRegressor",
    "lightgbm": "LGBMClassifier LGBMRegressor",
    "xgboost": "XGBClassifier XGBRegressor",
}

IMPORTS = {name: module for module, names in _MODULES.items() for name in names.split()}
MODULE_ALIASES = {"np": "import numpy as np", "pd": "import pandas as pd"}


@functools.cache
def helpers() -> dict[str, str]:
    """Name -> source of every function in `helpers.py`, read without importing it (and with it SciPy)."""
    text = (resources.files(__package__) / "helpers.py").read_text()
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(text, node) or "" for node in functions}
