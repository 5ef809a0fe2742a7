"""Delivery times of a restaurant."""

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")


def without_outliers(X, y, share):
    """Rows whose target is not among the smallest or the largest `share`."""
    low, high = np.quantile(y, [share, 1 - share])
    keep = np.asarray((y >= low) & (y <= high))
    return X[keep], y[keep]


target = "time_to_delivery"
features = test.columns.drop("id").tolist()
X, X_test, y = train[features], test[features], train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)
X_fit, y_fit = without_outliers(X_fit, y_fit, share=0.2)

model = make_pipeline(
    make_column_transformer(
        (
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
            make_column_selector(dtype_exclude="number"),
        ),
        remainder="passthrough",
    ),
    HistGradientBoostingRegressor(max_iter=100, loss="absolute_error", random_state=0),
)
model.fit(X_fit, y_fit)

valid_predictions = np.clip(model.predict(X_valid), y_fit.min(), y_fit.max())
score = root_mean_squared_error(y_valid, valid_predictions)
print(f"validation rmse: {score:.4f}")

X, y = without_outliers(X, y, share=0.2)
model.fit(X, y)
predictions = np.clip(model.predict(X_test), y.min(), y.max())
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
