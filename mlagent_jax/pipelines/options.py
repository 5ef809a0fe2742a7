"""The space: for each slot of a pipeline its options, by kind of data and by what is learnt."""

from __future__ import annotations

from mlagent_jax.pipelines.estimators import ESTIMATORS
from mlagent_jax.pipelines.option import (
    ALL,
    GRAPH,
    IMAGE,
    PAGES,
    PAIR,
    SERIES,
    TABLE,
    TEXT,
    CategoricalParam,
    NumericParam,
    Option,
)

_SEED = "random_state=0"


def _step(what, said, kinds=ALL, params=None, fixed="", first=("", ""), base=()) -> Option:
    """what: slot, name and class or function, as in "scaling.standard StandardScaler"."""
    (slot, name), callee = what.split()[0].split("."), what.split()[1]
    return Option(slot, name, (callee, callee), said, kinds, params or {}, base, first, fixed)


STEPS = (
    _step(
        "encoding.one_hot OneHotEncoder",
        "(One hot encode|Give each value its own column in) the (categorical|text) columns",
        TABLE,
        {"min_frequency": NumericParam((5, 20), 1, 1000)},
        fixed='handle_unknown="ignore"; sparse_output=False',
    ),
    _step(
        "encoding.ordinal OrdinalEncoder",
        "(Number the values of|Give a number to each value of) the (categorical|text) columns",
        TABLE,
        fixed='handle_unknown="use_encoded_value"; unknown_value=-1',
    ),
    _step(
        "encoding.target TargetEncoder",
        "(Encode|Replace) the (categorical|text) columns by (the|their) mean target",
        TABLE,
        fixed=_SEED,
    ),
    _step(
        "gaps.median SimpleImputer",
        "(Fill|Impute) (gaps|missing values) with the median",
        TABLE,
        {"add_indicator": CategoricalParam((True,))},
        fixed='strategy="median"',
    ),
    _step(
        "gaps.zero SimpleImputer",
        "(Fill|Impute) (gaps|missing values) with zeros",
        TABLE,
        {"add_indicator": CategoricalParam((True,))},
        fixed='strategy="constant"; fill_value=0',
    ),
    _step(
        "scaling.standard StandardScaler",
        "(Standardize the features|Scale the features to zero mean and unit variance|Bring the features to one scale)",
    ),
    _step(
        "scaling.range MinMaxScaler",
        "(Scale|Bring|Squeeze) the features (to|into) the range from zero to one",
    ),
    _step("scaling.largest MaxAbsScaler", "(Divide|Scale) each feature by its largest (value|entry)", TEXT),
    _step(
        "scaling.ranks QuantileTransformer",
        "(Replace the features by|Turn the features into|Use) their (ranks|quantiles)",
        ALL - TEXT,
        fixed=f"n_quantiles=50; {_SEED}",
    ),
    _step(
        "scaling.logarithms FunctionTransformer",
        "(Take|Use) (logarithms|the logarithm) of the features",
        ALL - TEXT - IMAGE,
        first=("logged", "logged"),
    ),
    _step("scaling.unit_length Normalizer", "(Scale|Bring|Normalize) each row to (unit length|length one)"),
    _step(
        "reduction.components PCA",
        "(Keep|Reduce the features to) principal components (with|of) {n_components}% of the variance",
        ALL - TEXT - PAGES,
        {"n_components": NumericParam((0.5, 0.9, 0.99), 0.05, 0.999, whole=False, percent=True)},
        fixed=_SEED,
    ),
    _step(
        "reduction.topics TruncatedSVD",
        "(Reduce|Compress) the (word counts|texts) to {n_components} (topics|dense components)",
        TEXT,
        {"n_components": NumericParam((20, 50, 100), 1, 500)},
        fixed=_SEED,
    ),
    _step(
        "reduction.select SelectPercentile",
        "(Keep|Select) the {percentile}% of features that best (follow|predict) the target",
        ALL - PAGES,
        {"percentile": NumericParam((10, 50), 1, 99)},
        first=("f_classif", "f_regression"),
    ),
)


def _target(name: str, said: str, fixed: str) -> Option:
    return Option("target", name, ("", "TransformedTargetRegressor"), said, fixed=fixed)


TARGETS = (
    _target(
        "logarithm", "(Predict|Fit|Learn) the logarithm of the target", "func=np.log1p; inverse_func=np.expm1"
    ),
    _target(
        "standard",
        "(Standardize the target|Fit the target at zero mean and unit variance|Scale the target)",
        "transformer=StandardScaler()",
    ),
    _target(
        "root", "(Predict|Fit|Learn) the square root of the target", "func=np.sqrt; inverse_func=np.square"
    ),
)

_VOTING = ("VotingClassifier", "VotingRegressor")
ENSEMBLES = (
    Option(
        "ensemble",
        "bagged",
        ("BaggingClassifier", "BaggingRegressor"),
        "(Average|Bag) {n_estimators} copies of the model fitted to (samples of the rows|bootstrap samples)",
        ALL,
        {"n_estimators": NumericParam((5, 10), 2, 50)},
        fixed=_SEED,
    ),
    _step(
        "ensemble.tuned GridSearchCV",
        "(Tune|Choose) the (main parameter|strength) of the model by {cv} fold cross validation",
        ALL,
        {"cv": NumericParam((3, 5), 2, 10)},
    ),
    *(
        Option(
            "ensemble",
            f"with_{name}",
            calls,
            f"(Average the model with|Blend the model with|Add) {words}",
            kinds,
        )
        for name, words, kinds, calls in (
            ("forest", "a forest as second model", ALL, _VOTING),
            ("boosting", "boosted trees as second model", ALL - IMAGE - TEXT, _VOTING),
            ("neighbors", "nearest neighbors as second model", ALL - PAGES, _VOTING),
            ("logistic", "logistic regression as second model", ALL, ("VotingClassifier", "")),
            ("ridge", "ridge as second model", ALL, ("", "VotingRegressor")),
        )
    ),
)
_SIGMA = NumericParam((0.5, 1), 0.1, 5, whole=False)
ROWS = (
    Option(
        "outliers",
        "without_outliers",
        ("", "without_outliers"),
        "(Leave out|Drop) the {share}% (largest and smallest|most extreme) targets",
        ALL - PAGES,
        {"share": NumericParam((0.01, 0.05), 0.001, 0.4, whole=False, percent=True)},
    ),
    _step(
        "cleaning.markup without_markup", "(Remove|Strip|Cut) (tags and links|markup) from the texts", TEXT
    ),
    _step(
        "cleaning.digits without_digits",
        "(Replace|Write) (all numbers|every number) in the texts (by|as) a zero",
        TEXT,
    ),
    _step("cleaning.deskew deskewed", "(Deskew|Set upright|Straighten) (the|slanted) images", IMAGE),
    _step(
        "cleaning.contrast contrasted", "(Normalize|Even out) the contrast of (each image|the images)", IMAGE
    ),
    _step("cleaning.blur blurred", "(Blur|Smooth) the images with sigma {sigma}", IMAGE, {"sigma": _SIGMA}),
    _step(
        "cleaning.standardize standardized",
        "(Bring|Normalize) each series to zero mean and unit variance",
        SERIES,
    ),
    _step(
        "cleaning.smooth smoothed", "(Smooth|Blur) the series with sigma {sigma}", SERIES, {"sigma": _SIGMA}
    ),
    _step("augmentation.mirror mirrored", "Add (mirrored|mirror) (copies of the images|images)", IMAGE),
    _step(
        "augmentation.shift shifted", "Add (copies of the images shifted|images shifted) by one pixel", IMAGE
    ),
    _step(
        "augmentation.turn turned", "Add (copies of the images turned|images turned) by right angles", IMAGE
    ),
    _step(
        "augmentation.noise noisy",
        "Add (copies|examples) with noise of spread {spread}",
        IMAGE | SERIES,
        {"spread": NumericParam((0.05, 0.2), 0.001, 1, whole=False)},
    ),
    _step(
        "augmentation.roll rolled",
        "Add {copies} copies of each series (that begin elsewhere|begun elsewhere)",
        SERIES,
        {"copies": NumericParam((2, 5), 1, 20)},
    ),
    _step(
        "augmentation.flip flipped",
        "Add (flipped|mirrored and upside down) (copies of the pages|pages)",
        PAGES,
    ),
)


def _view(kinds: frozenset[str], name: str, said: str, params=None) -> Option:
    return Option("views", name, (name, name), said, kinds, params or {})


_AROUND = NumericParam((3, 5, 9), 2, 31)
WORD_COUNTS = {
    "max_features": NumericParam((300, 2000, 10000), 10, 200_000),
    "ngram_range": CategoricalParam(((1, 2),)),
    "min_df": NumericParam((2, 5), 1, 100),
    "stop_words": CategoricalParam(("english",)),
}
VIEWS = (
    _step("views.counts CountVectorizer", "(plain counts|how often each word occurs)", TEXT, WORD_COUNTS),
    _step(
        "views.presence CountVectorizer",
        "(the mere presence of words|which words occur at all)",
        TEXT,
        WORD_COUNTS,
        fixed="binary=True",
    ),
    _step(
        "views.tfidf TfidfVectorizer",
        "(TF-IDF weights|counts weighted by rarity)",
        TEXT,
        WORD_COUNTS,
        fixed="sublinear_tf=True",
    ),
    _step(
        "views.characters TfidfVectorizer",
        "(sequences of characters|pieces of words)",
        TEXT,
        {"max_features": NumericParam((3000, 20000), 10, 200_000)},
        base=(("max_features", 20000),),
        fixed='analyzer="char_wb"; ngram_range=(2, 4); sublinear_tf=True',
    ),
    _view(PAIR, "letters", "(shared letters and lengths|letters in common)"),
    _view(PAIR, "groups", "(the collection of the pair|which collection a pair is from)"),
    _view(PAIR, "cosine", "(the cosine of the two vectors|the cosine of the vectors)"),
    _view(PAIR, "products", "(products of the vectors' components|componentwise products)"),
    _view(PAIR, "differences", "(differences of the vectors' components|componentwise differences)"),
    _view(PAIR, "distances", "(distances between the vectors|how far apart the vectors are)"),
    _view(IMAGE, "pixels", "(the pixels|all pixels)"),
    _view(IMAGE, "halved", "(pixels at half the resolution|means of four pixels each)"),
    _view(
        IMAGE,
        "gradients",
        "(histograms of gradients|gradient directions) in {cells} cells a side",
        {"cells": NumericParam((2, 4), 1, 8)},
    ),
    _view(IMAGE, "radial_power_spectrum", "(the power spectrum|the spectrum by distance from its centre)"),
    _view(IMAGE, "local_binary_patterns", "(local binary patterns|patterns of brighter neighbours)"),
    _view(
        IMAGE,
        "colours",
        "a histogram of colours (in|at) {levels} levels",
        {"levels": NumericParam((3, 4), 2, 8)},
    ),
    _view(SERIES, "points", "(the points|all points) of the series"),
    _view(SERIES, "slopes", "(slopes from point to point|the changes between points)"),
    _view(
        SERIES,
        "frequencies",
        "the {count} lowest frequencies (of the spectrum|)",
        {"count": NumericParam((20, 60), 2, 200)},
    ),
    _view(SERIES, "summary_statistics", "(means and quantiles|summary statistics) of each series"),
    _view(SERIES, "autocorrelation", "(autocorrelations|the correlation of each series with itself)"),
    _view(
        SERIES,
        "convolutions",
        "{kernels} random (convolutions|kernels)",
        {"kernels": NumericParam((100, 500), 10, 2000)},
    ),
    _view(GRAPH, "numbers", "(the numbers of the nodes|the nodes' own numbers)"),
    _view(GRAPH, "degrees", "(the number of links|the degree) of each node"),
    _view(GRAPH, "neighbours", "(counts of the neighbours' classes|how many neighbours are of each class)"),
    _view(GRAPH, "shares", "(shares of the neighbours' classes|which share of neighbours is of each class)"),
    _view(GRAPH, "two_steps", "(classes of nodes two links away|the classes of neighbours of neighbours)"),
    _view(
        GRAPH,
        "spectral_embedding",
        "{size} (eigenvectors|spectral coordinates) of the graph",
        {"size": NumericParam((8, 32), 1, 64)},
    ),
    _view(PAGES, "grey", "(the grey of the pixel|each pixel's own grey)"),
    _view(PAGES, "mean_around", "the mean of the {size} pixels around (it|each)", {"size": _AROUND}),
    _view(PAGES, "middle_around", "the median of the {size} pixels around (it|each)", {"size": _AROUND}),
    _view(PAGES, "darkest_around", "the darkest of the {size} pixels around (it|each)", {"size": _AROUND}),
    _view(
        PAGES,
        "background",
        "the paper's shade (over|within) {size} pixels",
        {"size": NumericParam((9, 15), 3, 41)},
    ),
    _view(
        PAGES,
        "patch",
        "(all pixels|each pixel) of the patch of {size} a side",
        {"size": NumericParam((3, 5), 2, 9)},
    ),
)

OPTIONS = (*ESTIMATORS, *STEPS, *TARGETS, *ENSEMBLES, *ROWS, *VIEWS)
BY_NAME = {(option.slot, option.name): option for option in OPTIONS}
