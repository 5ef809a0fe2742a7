"""Boosted trees, support vectors and ridge on log prices, averaged; all columns, scales as ranks."""

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer
from sklearn.svm import SVR

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")
y = np.log1p(train.pop("sale_price"))

SCALE = ["Very_Poor", "Poor", "Fair", "Below_Average", "Typical", "Average", "Above_Average", "Good"]
SCALE += ["Very_Good", "Excellent", "Very_Excellent"]
RANK = {word: rank for rank, word in enumerate(SCALE)}


def features(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.drop(columns="id").fillna("none")
    for column in ("overall_cond", "exter_cond", "bsmt_cond", "heating_qc", "garage_cond"):
        frame[f"{column}_rank"] = (
            frame[column].map({word: rank for rank, word in enumerate(SCALE)}).fillna(-1)
        )
    frame["total_sf"] = frame.total_bsmt_sf + frame.first_flr_sf + frame.second_flr_sf
    frame["baths"] = (
        frame.full_bath + 0.5 * frame.half_bath + frame.bsmt_full_bath + 0.5 * frame.bsmt_half_bath
    )
    frame["age"] = frame.year_sold - frame.year_built
    frame["since_remodel"] = frame.year_sold - frame.year_remod_add
    return frame


X, X_test = features(train), features(test)
words = X.select_dtypes(exclude="number").columns.tolist()
numbers = X.select_dtypes("number").columns.tolist()
columns = make_column_transformer(
    (OneHotEncoder(handle_unknown="ignore", min_frequency=5), words),
    (PowerTransformer(), numbers),
    sparse_threshold=0,
)
boosting = GradientBoostingRegressor(
    n_estimators=700, learning_rate=0.04, max_depth=4, subsample=0.6, max_features=0.2, random_state=0
)
weights_and_models = [
    (0.50, boosting),
    (0.35, SVR(C=1.0, gamma=0.003, epsilon=0.03)),
    (0.15, RidgeCV(alphas=np.logspace(0, 3, 10))),
]
logs = sum(w * make_pipeline(columns, model).fit(X, y).predict(X_test) for w, model in weights_and_models)
predictions = np.expm1(logs)
pd.DataFrame({"id": test["id"], "sale_price": predictions}).to_csv("submission.csv", index=False)
