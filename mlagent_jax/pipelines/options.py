"""The space: for each slot of a pipeline its options, by kind of data and by what is learnt."""

from __future__ import annotations

from mlagent_jax.pipelines.estimators import ESTIMATORS
from mlagent_jax.pipelines.option import (
    ALL,
    GRAPH,
    IMAGE,
    PAGES,
    PAIR,
    SEED,
    SERIES,
    TABLE,
    TEXT,
    CategoricalParam,
    NumericParam,
    Option,
    Param,
)

_VOTING = "VotingClassifier VotingRegressor"
_SIGMA = NumericParam((0.5, 1), 0.1, 5)
_AROUND = NumericParam((3, 5, 9), 2, 31)
_WORD_COUNTS: dict[str, Param] = {
    "max_features": NumericParam((300, 2000, 10000), 10, 200_000),
    "ngram_range": CategoricalParam(((1, 2),)),
    "min_df": NumericParam((2, 5), 1, 100),
    "stop_words": CategoricalParam(("english",)),
}
WORD_VIEWS = ("counts", "presence", "tfidf")  # of which a pipeline has one at most


def _view(kinds: frozenset[str], name: str, said: str, number: NumericParam | None = None) -> Option:
    return Option(f"views.{name} {name}", said, kinds, number)


def _words(what: str, said: str, fixed: str = "") -> Option:
    return Option(f"views.{what}", said, TEXT, others=_WORD_COUNTS, fixed=fixed)


OPTIONS = (
    *ESTIMATORS,
    Option(
        "encoding.one_hot OneHotEncoder",
        "(One hot encode|Give each value its own column in) the (categorical|text) columns",
        TABLE,
        others={"min_frequency": NumericParam((5, 20), 1, 1000)},
        fixed='handle_unknown="ignore"; sparse_output=False',
    ),
    Option(
        "encoding.ordinal OrdinalEncoder",
        "(Number the values of|Give a number to each value of) the (categorical|text) columns",
        TABLE,
        fixed='handle_unknown="use_encoded_value"; unknown_value=-1',
    ),
    Option(
        "encoding.target TargetEncoder",
        "(Encode|Replace) the (categorical|text) columns by (the|their) mean target",
        TABLE,
        fixed=SEED,
    ),
    Option(
        "gaps.median SimpleImputer",
        "(Fill|Impute) (gaps|missing values) with the median",
        TABLE,
        others={"add_indicator": CategoricalParam((True,))},
        fixed='strategy="median"',
    ),
    Option(
        "gaps.zero SimpleImputer",
        "(Fill|Impute) (gaps|missing values) with zeros",
        TABLE,
        others={"add_indicator": CategoricalParam((True,))},
        fixed='strategy="constant"; fill_value=0',
    ),
    Option(
        "scaling.standard StandardScaler",
        "(Standardize the features|Scale the features to zero mean and unit variance|Bring the features to one scale)",
    ),
    Option(
        "scaling.range MinMaxScaler",
        "(Scale|Bring|Squeeze) the features (to|into) the range from zero to one",
    ),
    Option("scaling.largest MaxAbsScaler", "(Divide|Scale) each feature by its largest (value|entry)", TEXT),
    Option(
        "scaling.ranks QuantileTransformer",
        "(Replace the features by|Turn the features into|Use) their (ranks|quantiles)",
        ALL - TEXT,
        fixed=f"n_quantiles=50; {SEED}",
    ),
    Option(
        "scaling.logarithms FunctionTransformer",
        "(Take|Use) (logarithms|the logarithm) of the features",
        ALL - TEXT - IMAGE,
        first=("logged",),
    ),
    Option("scaling.unit_length Normalizer", "(Scale|Bring|Normalize) each row to (unit length|length one)"),
    Option(
        "reduction.components PCA",
        "(Keep|Reduce the features to) principal components (with|of) {n_components}% of the variance",
        ALL - TEXT - PAGES,
        NumericParam((0.5, 0.9, 0.99), 0.05, 0.999, percent=True),
        fixed=SEED,
    ),
    Option(
        "reduction.topics TruncatedSVD",
        "(Reduce|Compress) the (word counts|texts) to {n_components} (topics|dense components)",
        TEXT,
        NumericParam((20, 50, 100), 1, 500),
        fixed=SEED,
    ),
    Option(
        "reduction.select SelectPercentile",
        "(Keep|Select) the {percentile}% of features that best (follow|predict) the target",
        ALL - PAGES,
        NumericParam((10, 50), 1, 99),
        first=("f_classif", "f_regression"),
    ),
    Option(
        "target.logarithm - TransformedTargetRegressor",
        "(Predict|Fit|Learn) the logarithm of the target",
        fixed="func=np.log1p; inverse_func=np.expm1",
    ),
    Option(
        "target.standard - TransformedTargetRegressor",
        "(Standardize the target|Fit the target at zero mean and unit variance|Scale the target)",
        fixed="transformer=StandardScaler()",
    ),
    Option(
        "target.root - TransformedTargetRegressor",
        "(Predict|Fit|Learn) the square root of the target",
        fixed="func=np.sqrt; inverse_func=np.square",
    ),
    Option(
        "ensemble.bagged BaggingClassifier BaggingRegressor",
        "(Average|Bag) {n_estimators} copies of the model fitted to (samples of the rows|bootstrap samples)",
        ALL,
        NumericParam((5, 10), 2, 50),
        fixed=SEED,
    ),
    Option(
        "ensemble.tuned GridSearchCV",
        "(Tune|Choose) the (main parameter|strength) of the model by {cv} fold cross validation",
        ALL,
        NumericParam((3, 5), 2, 10),
    ),
    *(
        Option(
            f"ensemble.with_{name} {calls}",
            f"(Average the model with|Blend the model with|Add) {words} as second model",
            kinds,
            second=second,
        )
        for name, words, second, kinds, calls in (
            ("forest", "a forest", (("n_estimators", 100),), ALL, _VOTING),
            ("boosting", "boosted trees", (("max_iter", 100),), ALL - IMAGE - TEXT, _VOTING),
            ("neighbors", "nearest neighbors", (("n_neighbors", 5),), ALL - PAGES, _VOTING),
            ("logistic", "logistic regression", (("C", 1.0),), ALL, "VotingClassifier -"),
            ("ridge", "ridge", (("alpha", 1.0),), ALL, "- VotingRegressor"),
        )
    ),
    Option(
        "outliers.without_outliers - without_outliers",
        "(Leave out|Drop) the {share}% (largest and smallest|most extreme) targets",
        ALL - PAGES,
        NumericParam((0.01, 0.05), 0.001, 0.4, percent=True),
    ),
    Option(
        "cleaning.markup without_markup", "(Remove|Strip|Cut) (tags and links|markup) from the texts", TEXT
    ),
    Option(
        "cleaning.digits without_digits",
        "(Replace|Write) (all numbers|every number) in the texts (by|as) a zero",
        TEXT,
    ),
    Option("cleaning.deskew deskewed", "(Deskew|Set upright|Straighten) (the|slanted) images", IMAGE),
    Option(
        "cleaning.contrast contrasted", "(Normalize|Even out) the contrast of (each image|the images)", IMAGE
    ),
    Option("cleaning.blur blurred", "(Blur|Smooth) the images with sigma {sigma}", IMAGE, _SIGMA),
    Option(
        "cleaning.standardize standardized",
        "(Bring|Normalize) each series to zero mean and unit variance",
        SERIES,
    ),
    Option("cleaning.smooth smoothed", "(Smooth|Blur) the series with sigma {sigma}", SERIES, _SIGMA),
    Option("augmentation.mirror mirrored", "Add (mirrored|mirror) (copies of the images|images)", IMAGE),
    Option(
        "augmentation.shift shifted", "Add (copies of the images shifted|images shifted) by one pixel", IMAGE
    ),
    Option(
        "augmentation.turn turned", "Add (copies of the images turned|images turned) by right angles", IMAGE
    ),
    Option(
        "augmentation.noise noisy",
        "Add (copies|examples) with noise of spread {spread}",
        IMAGE | SERIES,
        NumericParam((0.05, 0.2), 0.001, 1),
    ),
    Option(
        "augmentation.roll rolled",
        "Add {copies} copies of each series (that begin elsewhere|begun elsewhere)",
        SERIES,
        NumericParam((2, 5), 1, 20),
    ),
    Option(
        "augmentation.flip flipped",
        "Add (flipped|mirrored and upside down) (copies of the pages|pages)",
        PAGES,
    ),
    _words("counts CountVectorizer", "(plain counts|how often each word occurs)"),
    _words(
        "presence CountVectorizer", "(the mere presence of words|which words occur at all)", "binary=True"
    ),
    _words("tfidf TfidfVectorizer", "(TF-IDF weights|counts weighted by rarity)", "sublinear_tf=True"),
    Option(
        "views.characters TfidfVectorizer",
        "(sequences of characters|pieces of words)",
        TEXT,
        others={"max_features": NumericParam((3000, 20000), 10, 200_000)},
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
        NumericParam((2, 4), 1, 8),
    ),
    _view(IMAGE, "radial_power_spectrum", "(the power spectrum|the spectrum by distance from its centre)"),
    _view(IMAGE, "local_binary_patterns", "(local binary patterns|patterns of brighter neighbours)"),
    _view(IMAGE, "colours", "a histogram of colours (in|at) {levels} levels", NumericParam((3, 4), 2, 8)),
    _view(SERIES, "points", "(the points|all points) of the series"),
    _view(SERIES, "slopes", "(slopes from point to point|the changes between points)"),
    _view(
        SERIES,
        "frequencies",
        "the {count} lowest frequencies (of the spectrum|)",
        NumericParam((20, 60), 2, 200),
    ),
    _view(SERIES, "summary_statistics", "(means and quantiles|summary statistics) of each series"),
    _view(SERIES, "autocorrelation", "(autocorrelations|the correlation of each series with itself)"),
    _view(
        SERIES, "convolutions", "{kernels} random (convolutions|kernels)", NumericParam((100, 500), 10, 2000)
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
        NumericParam((8, 32), 1, 64),
    ),
    _view(PAGES, "grey", "(the grey of the pixel|each pixel's own grey)"),
    _view(PAGES, "mean_around", "the mean of the {size} pixels around (it|each)", _AROUND),
    _view(PAGES, "middle_around", "the median of the {size} pixels around (it|each)", _AROUND),
    _view(PAGES, "darkest_around", "the darkest of the {size} pixels around (it|each)", _AROUND),
    _view(PAGES, "background", "the paper's shade (over|within) {size} pixels", NumericParam((9, 15), 3, 41)),
    _view(
        PAGES, "patch", "(all pixels|each pixel) of the patch of {size} a side", NumericParam((3, 5), 2, 9)
    ),
)
BY_NAME = {(option.slot, option.name): option for option in OPTIONS}
