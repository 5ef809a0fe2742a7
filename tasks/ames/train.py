"""House prices in Ames."""

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.metrics import root_mean_squared_log_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

target = "sale_price"
features = [
    "lot_area",
    "year_built",
    "bedroom_abvgr",
    "garage_cars",
    "mo_sold",
    "neighborhood",
    "bldg_type",
]
X, X_test, y = train[features], test[features], train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = make_pipeline(
    make_column_transformer(
        (
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
            make_column_selector(dtype_exclude="number"),
        ),
        remainder="passthrough",
    ),
    SimpleImputer(strategy="constant", fill_value=0),
    HistGradientBoostingRegressor(max_iter=100, learning_rate=0.03, random_state=0),
)
model.fit(X_fit, y_fit)

valid_predictions = np.clip(model.predict(X_valid), y_fit.min(), y_fit.max())
score = root_mean_squared_log_error(y_valid, valid_predictions)
print(f"validation rmsle: {score:.4f}")

model.fit(X, y)
predictions = np.clip(model.predict(X_test), y.min(), y.max())
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
